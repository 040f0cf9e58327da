"""Drivers that meet in one output: who waits, who takes over, and what one that was asleep can still do."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from plait_service import driver as driver_module
from plait_service import housekeeping
from plait_service.verify import verify
from tests.support import reference
from tests.support.checkpoints import Family, make_family, read_model
from tests.support.driving import Gate, Orders, error_of, finish, outcome_of, start
from tests.support.merging import digests, fails, merge, model_files, working_files
from tests.support.pausing import Sleeper, let_heartbeats_expire

SHAPES = {"a": ("BF16", (200, 257)), "odd": ("U8", (33,)), "b": ("F32", (20_001,))}
WRITING = [
    "complete model-00001-of-00002.safetensors",
    "complete model-00002-of-00002.safetensors",
    "put README.md",
    "put model.safetensors.index.json",
    "put config.json",
    "look",
    "put plait.json",
]


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, SHAPES)


def spec_of(family: Family, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return family.spec(seed=seed, **{"shard_size": 100_000, "part_size": "64KiB", **changes})


def assert_result(family: Family, fingerprint: str, seed: int) -> None:
    """The whole result of this merge and nothing else."""
    expected, _ = reference.expected(family.models, family.base, seed=seed)
    assert read_model(family.out) == expected
    checked = verify(str(family.out), sample=1.0, threads=1)
    assert checked.fingerprint == fingerprint
    assert not checked.problems
    assert fingerprint in (family.out / "README.md").read_text()
    assert not working_files(family.out)


class TestAnother:
    def test_one_that_is_alive_is_left_alone(self, family: Family) -> None:
        first = Sleeper(spec_of(family), "units").asleep()
        with fails("output-claimed") as failed:
            merge(spec_of(family, seed=1))
        assert failed.value.retryable
        assert failed.value.exit_status == 1
        assert "--overwrite" in str(failed.value)
        outcome = first.wake()
        assert outcome.fingerprint[:12] in str(failed.value)
        assert_result(family, outcome.fingerprint, seed=0)

    def test_one_that_stopped_in_order_is_followed_at_once(self, family: Family) -> None:
        prepared_to_stop = Sleeper(
            spec_of(family, dtype="f32", method={"name": "average"}), "uploads"
        ).asleep()
        error = prepared_to_stop.wake_to_fail()  # integers differ
        assert error.kind == "tensor-mismatch"
        outcome = merge(spec_of(family, seed=1))
        assert_result(family, outcome.fingerprint, seed=1)

    @pytest.mark.parametrize("at", ["check", "uploads", "resume", "units", "publish", WRITING[0]])
    @pytest.mark.parametrize("when", ["at work", "done"])
    def test_one_that_is_silent_is_followed_and_can_publish_nothing(
        self, family: Family, at: str, when: str
    ) -> None:
        first = Sleeper(spec_of(family), at).asleep()
        let_heartbeats_expire(family.out)
        if when == "at work":
            second = Sleeper(spec_of(family, seed=1), "publish").asleep()
            assert first.wake_to_fail().kind == "output-claimed"
            assert not model_files(family.out)
            outcome = second.wake()
        else:
            outcome = merge(spec_of(family, seed=1))
            before = digests(family.out)
            assert first.wake_to_fail().kind == "output-claimed"
            assert digests(family.out) == before
        assert_result(family, outcome.fingerprint, seed=1)

    def test_what_a_silent_one_completed_is_not_silently_replaced(self, family: Family) -> None:
        first = Sleeper(spec_of(family), WRITING[1]).asleep()
        let_heartbeats_expire(family.out)
        with fails("output-exists"):
            merge(spec_of(family, seed=1))
        assert_result(family, first.wake().fingerprint, seed=0)

    @pytest.mark.parametrize("at", ["uploads", "units", *WRITING])
    @pytest.mark.parametrize("when", ["at work", "publishing", "done"])
    def test_overwrite_takes_the_output_and_the_other_can_publish_nothing(
        self, family: Family, at: str, when: str
    ) -> None:
        first = Sleeper(spec_of(family), at).asleep()
        if when == "done":
            outcome = merge(spec_of(family, seed=1), overwrite=True)
            assert first.wake_to_fail().kind == "output-claimed"
        else:
            step = "units" if when == "at work" else "put config.json"
            second = Sleeper(spec_of(family, seed=1), step, overwrite=True).asleep()
            before = model_files(family.out)
            assert first.wake_to_fail().kind == "output-claimed"
            assert model_files(family.out) == before
            outcome = second.wake()
        assert_result(family, outcome.fingerprint, seed=1)

    def test_a_takeover_is_noticed_in_the_middle_of_the_work(
        self, family: Family, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver_module, "FLUSH_EVERY", 0.02)
        monkeypatch.setattr(housekeeping, "HEARTBEAT", 0.0)
        slow = Sleeper(spec_of(family), "units", on_progress=lambda _progress: time.sleep(3)).asleep()
        outcome = merge(spec_of(family, seed=1), overwrite=True)
        assert slow.wake_to_fail().kind == "output-claimed"
        assert_result(family, outcome.fingerprint, seed=1)

    def test_an_old_claim_of_the_same_number_is_not_mistaken_for_the_new_one(self, family: Family) -> None:
        first = Sleeper(spec_of(family), "publish").asleep()
        merge(spec_of(family, seed=1), overwrite=True)
        third = Sleeper(spec_of(family, seed=2), "units", overwrite=True).asleep()
        assert first.wake_to_fail().kind == "output-claimed"
        assert_result(family, third.wake().fingerprint, seed=2)


class TestTheSame:
    @pytest.mark.parametrize("at", ["uploads", "resume", "units", "publish", *WRITING, "clean up"])
    def test_two_share_the_work_and_the_result(self, family: Family, at: str) -> None:
        first = Sleeper(spec_of(family), at).asleep()
        second = merge(spec_of(family))
        assert first.wake().fingerprint == second.fingerprint
        assert_result(family, second.fingerprint, seed=0)

    def test_one_that_joins_late_takes_what_is_on_record(self, family: Family) -> None:
        first = Sleeper(spec_of(family), "publish").asleep()
        second = merge(spec_of(family))
        assert second.merged_parts == 0
        assert second.resumed_parts > 2
        first.wake()
        assert_result(family, second.fingerprint, seed=0)


def at_once(
    family: Family, out: Path, drivers: int, *, pause: float, kills: random.Random | None = None
) -> None:
    """Drivers of one merge in processes of their own; perhaps some of them, not all, are killed."""
    gate = Gate(out.with_name(f"{out.name}-gate"))
    orders = [
        Orders(
            spec=spec_of(family, output=str(out)),
            report=out.with_name(f"{out.name}-{index}"),
            pause=pause * index,
            flush_every=0.01,
            threads=1 + index % 2,
            memory=(1 + index) << 20,
        )
        for index in range(drivers)
    ]
    processes = [start(each, gate) for each in orders]
    gate.open_for(drivers)
    doomed = kills.sample(range(drivers), drivers // 2) if kills else []
    for index in doomed:
        time.sleep(kills.uniform(0, 0.1) if kills else 0)
        processes[index].kill()
    codes = [finish(process) for process in processes]
    survivors = [each for index, each in enumerate(orders) if index not in doomed]
    assert [code for index, code in enumerate(codes) if index not in doomed] == [0] * len(survivors), [
        each.report.read_text() for each in orders
    ]
    assert len({outcome_of(each).fingerprint for each in survivors}) == 1
    merge(spec_of(family, output=str(out)))  # tidies up after one that was killed at its very end
    expected, _ = reference.expected(family.models, family.base)
    assert read_model(out) == expected
    assert not verify(str(out), sample=0, threads=1).problems
    assert kills or not working_files(out)


@pytest.mark.parametrize("drivers", [2, 4])
@pytest.mark.parametrize("pause", [0.0, 0.004])
def test_several_processes_at_once_make_one_result(family: Family, drivers: int, pause: float) -> None:
    at_once(family, family.root / "out", drivers, pause=pause)


def test_some_of_several_are_killed(family: Family) -> None:
    at_once(family, family.root / "out", 4, pause=0.002, kills=random.Random(0))


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(100))
def test_many_times_several_of_which_some_are_killed(family: Family, seed: int) -> None:
    moments = random.Random(seed)
    at_once(family, family.root / "out0", 4, pause=moments.choice([0.0, 0.001, 0.004]))
    at_once(family, family.root / "out1", 4, pause=moments.choice([0.0, 0.001, 0.004]), kills=moments)


@pytest.mark.parametrize("number", range(2))
def test_of_two_different_ones_at_once_one_wins(family: Family, number: int) -> None:
    gate = Gate(family.root / "gate")
    orders = [
        Orders(spec=spec_of(family, seed=seed), report=family.root / f"{seed}", threads=1 + number)
        for seed in (0, 1)
    ]
    processes = [start(each, gate) for each in orders]
    gate.open_for(2)
    codes = [finish(process) for process in processes]
    assert sorted(codes) in ([0, 1], [0, 2])
    winner = codes.index(0)
    assert error_of(orders[1 - winner])[0] in ("output-claimed", "output-exists")
    assert_result(family, outcome_of(orders[winner]).fingerprint, seed=winner)
