"""Merges on a real cluster that nothing disturbs: the same bytes, the command, and what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from plait_service.cluster.resources import Resources
from tests.support.ray_cluster import RayCluster
from tests.support.ray_merge import PARTS, RayJob, Watched

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(autouse=True)
def cleared(ray_job: RayJob) -> Iterator[None]:
    yield
    ray_job.clear()


def test_the_same_bytes(ray_job: RayJob, ray_driver: RayCluster) -> None:
    watched = Watched(ray_job.spec())
    outcome = watched.run()
    assert outcome.merged_parts == PARTS
    ray_job.check()
    assert watched.kinds()[0] == "claimed"
    assert watched.kinds()[-1] == "committed"
    assert len(watched.workers()) == 2
    assert "retried" not in watched.kinds()


def test_a_fixed_number_of_workers(ray_job: RayJob, ray_driver: RayCluster) -> None:
    watched = Watched(ray_job.spec(), resources=Resources(workers=1))
    watched.run()
    ray_job.check()
    assert watched.kinds().count("node-joined") == 1
