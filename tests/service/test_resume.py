"""A merge that was killed, stopped or disturbed, and then run again."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plait_service.driver import Progress
from plait_service.verify import verify
from tests.support import reference
from tests.support.checkpoints import Family, make_family, read_model
from tests.support.driving import Orders, drive, finish, outcome_of, start, steps_of
from tests.support.merging import digests, fails, merge, model_files, prepared_of, working_files

SHAPES = {"a": ("BF16", (200, 257)), "odd": ("U8", (33,)), "b": ("F32", (20_001,))}
STEPS = [
    *("claim", "check", "uploads", "resume", "units", "sources", "publish"),
    *(f"complete model-0000{number}-of-00002.safetensors" for number in (1, 2)),
    *("put README.md", "put model.safetensors.index.json", "put config.json"),
    *("look", "put plait.json", "clean up"),
]
SHARDS = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
FILES = ["README.md", "model.safetensors.index.json", "config.json", "plait.json"]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return make_family(tmp_path_factory.mktemp("resume"), SHAPES)


@pytest.fixture(scope="module")
def fault_free(family: Family) -> dict[str, str]:
    """What the merge gives that nobody disturbs."""
    merge(spec_of(family))
    found = digests(family.out)
    shutil.rmtree(family.out)
    return found


@pytest.fixture(autouse=True)
def _tidy(family: Family) -> Iterator[None]:
    yield
    shutil.rmtree(family.out, ignore_errors=True)


def visible(out: Path) -> set[str]:
    """What a reader sees of a result in the making; each file is there only after those before it."""
    there = {path.name for path in out.iterdir() if path.is_file()} if out.exists() else set()
    assert there <= {*SHARDS, *FILES}
    for number, name in enumerate(FILES):
        if name in there:
            assert there >= {*SHARDS, *FILES[:number]}
    return there


def spec_of(family: Family, **changes: Any) -> dict[str, Any]:
    """Two shards and four parts."""
    return family.spec(**{"shard_size": 100_000, "part_size": "64KiB", **changes})


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_and_run_again(
    family: Family, fault_free: dict[str, str], tmp_path: Path, step: str
) -> None:
    spec, number = spec_of(family), STEPS.index(step)
    killed = Orders(spec=spec, report=tmp_path / "killed", kill_at=number, memory=1 << 20, threads=1)
    assert drive(killed) == -signal.SIGKILL
    assert steps_of(killed) == STEPS[: number + 1]
    there = visible(family.out)
    if number <= STEPS.index("publish") + 1:
        assert not there
    if number < len(STEPS) - 1:
        assert "plait.json" not in there
    again = Orders(spec=spec, report=tmp_path / "again", memory=64 << 20, threads=3)
    assert drive(again) == 0
    assert digests(family.out) == fault_free
    assert not working_files(family.out)
    outcome = outcome_of(again)
    assert outcome.already_done == (step == "clean up")
    if STEPS.index("publish") <= number < STEPS.index("clean up"):
        assert (outcome.merged_parts, outcome.resumed_parts) == (0, 4)
    elif number <= STEPS.index("units"):
        assert (outcome.merged_parts, outcome.resumed_parts) == (4, 0)


def test_killed_again_and_again_at_every_step_in_turn(
    family: Family, fault_free: dict[str, str], tmp_path: Path
) -> None:
    """No step undoes what an earlier run has done: each run gets at least as far as the one before."""
    for number in range(len(STEPS)):
        orders = Orders(spec=spec_of(family), report=tmp_path / str(number), kill_at=number)
        assert drive(orders) == -signal.SIGKILL
        assert steps_of(orders)[-1] == STEPS[number]
    assert merge(spec_of(family)).already_done
    assert digests(family.out) == fault_free
    assert not working_files(family.out)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """About 40 MB of sources in all; a result of 8 MB in 122 parts."""
    shapes = {"big": ("BF16", (2000, 1700)), "odd": ("U8", (33,)), "more": ("F32", (300_001,))}
    return make_family(tmp_path_factory.mktemp("large"), shapes)


def killed_at_random(large: Family, tmp_path: Path, *, seed: int, kills: int) -> None:
    out = tmp_path / "out"
    spec = large.spec(output=str(out), part_size="64KiB", shard_size="5MB")
    moments = random.Random(seed)
    for number in range(kills):
        orders = Orders(
            spec=spec,
            report=tmp_path / f"{number}",
            pause=0.2,
            flush_every=0.01,
            threads=moments.choice([1, 2, 3]),
            memory=moments.choice([1 << 20, 64 << 20]),
        )
        process = start(orders)
        while not orders.report.exists() or "units" not in orders.report.read_text():
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(moments.uniform(0.1, 0.8))
        process.kill()
        assert finish(process) == -signal.SIGKILL
        assert steps_of(orders)[-1] == "units"
        assert not model_files(out)
        assert {path.name for path in out.iterdir()} == {".plait"}
    last = merge(spec)
    parts = len(prepared_of(spec).plan.job.units())
    assert 0 < last.resumed_parts < parts
    assert last.resumed_parts + last.merged_parts == parts
    expected, _ = reference.expected(large.models, large.base)
    assert read_model(out) == expected
    assert not verify(str(out), sample=0.2, threads=2).problems
    assert not working_files(out)


def test_killed_ten_times_at_random_moments(large: Family, tmp_path: Path) -> None:
    killed_at_random(large, tmp_path, seed=1, kills=10)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2, 22))
def test_killed_at_many_random_moments(large: Family, tmp_path: Path, seed: int) -> None:
    killed_at_random(large, tmp_path, seed=seed, kills=10)


def killed_anywhere(
    family: Family, fault_free: dict[str, str], tmp_path: Path, *, seed: int, kills: int
) -> None:
    """At any moment between the first step and the last, planning and publishing included."""
    moments = random.Random(seed)
    for number in range(kills):
        orders = Orders(spec=spec_of(family), report=tmp_path / str(number), flush_every=0.001)
        process = start(orders)
        while not orders.report.exists() or not orders.report.read_text():
            assert process.is_alive()
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        if finish(process) == 0:
            assert digests(family.out) == fault_free
            assert not working_files(family.out)
            shutil.rmtree(family.out)
        visible(family.out)
    merge(spec_of(family))
    assert digests(family.out) == fault_free
    assert not working_files(family.out)


def test_killed_anywhere(family: Family, fault_free: dict[str, str], tmp_path: Path) -> None:
    killed_anywhere(family, fault_free, tmp_path, seed=1, kills=12)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2, 42))
def test_killed_anywhere_many_times(
    family: Family, fault_free: dict[str, str], tmp_path: Path, seed: int
) -> None:
    killed_anywhere(family, fault_free, tmp_path, seed=seed, kills=12)


def killed_in_the_work(family: Family, report: Path, parts: int) -> None:
    """A run on one thread that dies with this many parts of four finished and on record."""
    orders = Orders(spec=spec_of(family), report=report, threads=1, die_after_parts=parts, flush_every=0.01)
    assert drive(orders) == -signal.SIGKILL
    assert not model_files(family.out)


class TestRecords:
    @pytest.mark.parametrize("parts", [0, 1, 2, 3])
    def test_finished_parts_are_not_done_again(
        self, family: Family, fault_free: dict[str, str], tmp_path: Path, parts: int
    ) -> None:
        killed_in_the_work(family, tmp_path / "report", parts)
        seen: list[Progress] = []
        outcome = merge(spec_of(family), on_progress=seen.append)
        assert (outcome.resumed_parts, outcome.merged_parts) == (parts, 4 - parts)
        assert seen[-1].resumed_bytes + seen[-1].done_bytes == seen[-1].total_bytes
        assert digests(family.out) == fault_free

    @pytest.mark.parametrize("damage", ["cut", "empty", "noise", "no list"])
    def test_records_that_cannot_be_read_count_for_nothing(
        self, family: Family, fault_free: dict[str, str], tmp_path: Path, damage: str
    ) -> None:
        killed_in_the_work(family, tmp_path / "report", 3)
        journals = sorted((family.out / ".plait").glob("journal-*"))
        assert journals
        text = {"cut": journals[0].read_bytes()[:-5], "empty": b"", "noise": b"\xff[", "no list": b'{"a": 1}'}
        for journal in journals:
            journal.write_bytes(text[damage])
        outcome = merge(spec_of(family))
        assert (outcome.resumed_parts, outcome.merged_parts) == (0, 4)
        assert digests(family.out) == fault_free

    def test_a_part_that_the_store_does_not_have_is_done_again(
        self, family: Family, fault_free: dict[str, str], tmp_path: Path
    ) -> None:
        killed_in_the_work(family, tmp_path / "report", 3)
        for log in (family.out / ".plait").glob("uploads/*/parts"):
            log.write_bytes(log.read_bytes()[:-3])  # a last line that was being written
        outcome = merge(spec_of(family))
        assert 0 < outcome.resumed_parts < 3
        assert outcome.resumed_parts + outcome.merged_parts == 4
        assert digests(family.out) == fault_free


def test_stopped_and_run_again(family: Family, fault_free: dict[str, str]) -> None:
    stop = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.done_bytes > 70_000:
            stop.set()

    with fails("cancelled") as failed:
        merge(spec_of(family), stop=stop, on_progress=on_progress, threads=1, step=4096)
    assert failed.value.exit_status == 130
    assert "same command" in str(failed.value)
    assert not model_files(family.out)
    assert not list((family.out / ".plait").glob("alive-*"))
    outcome = merge(spec_of(family))
    assert outcome.resumed_parts >= 1
    assert outcome.resumed_parts + outcome.merged_parts == 4
    assert digests(family.out) == fault_free
