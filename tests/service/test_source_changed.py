"""Sources that change while they are read: the merge ends, and nothing looks like a model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plait_service.driver import Progress
from tests.support.checkpoints import Family, make_family
from tests.support.merging import fails, merge, model_files, prepared_of

SHAPES = {"a": ("BF16", (200, 257)), "b": ("F32", (20_001,)), "c": ("BF16", (100, 100))}


def overwrite(path: Path) -> None:
    """In place, the same size."""
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\1" * 100)


def replace(path: Path) -> None:
    """By another file of the same size and bytes, renamed onto it."""
    shutil.copyfile(path, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def truncate(path: Path) -> None:
    """Within the first tensor."""
    os.truncate(path, 5000)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"\0")


def delete(path: Path) -> None:
    path.unlink()


CHANGES: list[Callable[[Path], None]] = [overwrite, replace, truncate, cut_to_nothing, append, delete]


def spec_of(family: Family) -> dict[str, Any]:
    return family.spec(shard_size=100_000, part_size="64KiB")


def assert_refused(family: Family, path: Path, run: Callable[[], object]) -> None:
    with fails("source-changed") as failed:
        run()
    assert str(path) in str(failed.value)
    assert failed.value.exit_status == 1
    assert not model_files(family.out)
    assert not (family.out / "plait.json").exists()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("source", ["m1", "base"])
def test_after_the_plan_and_before_the_work(
    tmp_path: Path, change: Callable[[Path], None], source: str
) -> None:
    family = make_family(tmp_path, SHAPES)
    prepared = prepared_of(spec_of(family))
    path = tmp_path / source / "model.safetensors"
    change(path)
    assert_refused(family, path, lambda: merge(prepared))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", [0, 70_000, 150_000])
def test_in_the_middle_of_the_work(tmp_path: Path, change: Callable[[Path], None], when: int) -> None:
    family = make_family(tmp_path, SHAPES)
    path = tmp_path / "m1" / "model.safetensors"
    changed = False

    def on_progress(progress: Progress) -> None:
        nonlocal changed
        if progress.done_bytes > when and not changed:
            changed = True
            change(path)

    run = lambda: merge(spec_of(family), on_progress=on_progress, threads=1, step=4096)  # noqa: E731
    assert_refused(family, path, run)
    assert changed


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_that_is_not_open_yet(tmp_path: Path, change: Callable[[Path], None]) -> None:
    family = make_family(tmp_path, SHAPES, shards=3)
    path = tmp_path / "m2" / "model-00003-of-00003.safetensors"

    def on_step(name: str) -> None:
        if name == "units":
            change(path)

    assert_refused(family, path, lambda: merge(spec_of(family), on_step=on_step))


def test_a_changed_source_makes_another_merge_that_starts_afresh(tmp_path: Path) -> None:
    family = make_family(tmp_path, SHAPES)
    spec = spec_of(family)
    path = tmp_path / "m1" / "model.safetensors"
    with fails("source-changed"):
        merge(spec, on_step=lambda name: replace(path) if name == "units" else None)
    outcome = merge(spec)
    assert outcome.resumed_parts == 0
    expected = spec | {"output": str(tmp_path / "other")}
    merge(expected)
    for shard in family.out.glob("*.safetensors"):
        assert shard.read_bytes() == (tmp_path / "other" / shard.name).read_bytes()
