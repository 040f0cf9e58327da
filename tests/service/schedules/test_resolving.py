"""Places of a schedule, which a service reads: it has no working directory that anybody knows."""

from __future__ import annotations

import pytest

from tests.service.schedules.world import World
from tests.support.merging import fails


@pytest.mark.parametrize(
    "change",
    [{"latest": "merged/latest.json"}, {"ready": {"glob": "runs/{date}/order-*", "count": 2}}],
    ids=["latest", "ready"],
)
def test_relative_places_are_refused(world: World, change: dict[str, object]) -> None:
    with fails("spec-invalid") as failed:
        world.create(**change)
    assert "neither an absolute path nor" in str(failed.value)
