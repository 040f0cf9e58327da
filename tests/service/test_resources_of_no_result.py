"""Where a merge runs is no part of what it makes: the same fingerprint, and nothing of it in the manifest."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkpoints import make_family
from tests.support.merging import merge, plan_of


def test_neither_of_the_fingerprint_nor_of_the_result(tmp_path: Path) -> None:
    family = make_family(tmp_path, {"a": ("BF16", (20, 30))})
    resources = {"workers": 7, "cpus": 3, "memory": "1GB", "labels": {"disk": "fast"}}
    placed = family.spec(resources=resources)
    assert plan_of(placed).job.fingerprint == plan_of(family.spec()).job.fingerprint
    merge(placed)
    for name in ("plait.json", "README.md"):
        assert "resources" not in (family.out / name).read_text()
    assert merge(family.spec()).already_done
