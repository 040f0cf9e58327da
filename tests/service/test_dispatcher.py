"""The dispatcher with made-up clocks and workers: whatever they do, every part is done, and counted once."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from plait.errors import AccessDenied, InternalError, PlaitError, StoreUnavailable, UploadGone
from plait_service.cluster.dispatcher import Dispatcher, Policy
from plait_service.cluster.durations import Durations

POLICY = Policy(attempts=4, losses=5, most=16, silence=8.0, deadline=30.0)


def unavailable() -> PlaitError:
    return StoreUnavailable("reading", where="s3://somewhere")


class Bench:
    """A dispatcher, a clock, and shorthands."""

    def __init__(self, units: int, policy: Policy = POLICY) -> None:
        self.now = 0.0
        self.told: list[tuple[str, int | None, str | None]] = []
        self.dispatcher: Dispatcher[int] = Dispatcher(
            range(units), policy=policy, tell=lambda *event: self.told.append(event), jitter=lambda: 1.0
        )

    def join(self, *workers: str, slots: int = 2) -> None:
        for worker in workers:
            self.dispatcher.joined(worker, slots, self.now)

    def orders(self, worker: str) -> tuple[int, ...]:
        return self.dispatcher.orders(worker, self.now)

    def hear(
        self,
        worker: str,
        done: dict[int, float] | None = None,
        failed: dict[int, PlaitError] | None = None,
        running: tuple[int, ...] = (),
    ) -> list[int]:
        return self.dispatcher.heard(worker, self.now, done=done or {}, failed=failed or {}, running=running)

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.told]


class TestWhoGetsWhat:
    def test_a_worker_holds_what_it_does_and_a_little_more(self) -> None:
        bench = Bench(100)
        bench.join("a", slots=4)
        assert bench.orders("a") == (0, 1, 2, 3, 4)

    def test_a_quick_worker_holds_more(self) -> None:
        bench = Bench(1000)
        bench.join("a", slots=1)
        for _ in range(200):
            bench.now += 0.01
            bench.hear("a", done=dict.fromkeys(bench.orders("a")[:2], 0.005))
        assert 10 < len(bench.orders("a")) <= POLICY.most

    def test_what_lies_with_one_is_given_to_another_that_has_nothing(self) -> None:
        bench = Bench(4)
        bench.join("a", slots=1)
        bench.hear("a", done={}, running=())
        assert bench.orders("a") == (0, 1)
        bench.hear("a", running=(0,))
        bench.join("b", slots=4)
        assert bench.orders("b") == (2, 3, 1)
        assert bench.orders("a") == (0,)

    def test_of_two_copies_the_first_counts(self) -> None:
        bench = Bench(1)
        bench.join("a", "b")
        bench.orders("a")
        bench.hear("a", running=(0,))
        assert bench.orders("b") == ()
        bench.now += POLICY.unknown
        assert bench.orders("b") == (0,)
        assert "hedged" in bench.kinds()
        assert bench.hear("b", done={0: 1.0}) == [0]
        assert bench.hear("a", done={0: 99.0}) == []
        assert bench.dispatcher.is_finished
        assert bench.dispatcher.held_by("a") == bench.dispatcher.held_by("b") == ()

    def test_a_unit_that_takes_too_long_is_done_elsewhere_though_there_is_other_work(self) -> None:
        bench = Bench(1000)
        bench.join("a", "b")
        stuck = bench.orders("a")[0]
        bench.hear("a", running=(stuck,))
        for _ in range(40):
            bench.now += 1.0
            bench.dispatcher.tick(bench.now)
            bench.hear("a", running=(stuck,))
            bench.hear("b", done=dict.fromkeys(bench.orders("b"), 1.0))
        assert ("hedged", stuck, "b") in bench.told
        assert bench.dispatcher.num_open > 0


class TestWhatGoesWrong:
    def test_a_failed_unit_is_tried_again_later_and_elsewhere(self) -> None:
        bench = Bench(1)
        bench.join("a", "b")
        bench.orders("a")
        bench.hear("a", failed={0: unavailable()})
        assert bench.orders("b") == ()
        bench.now += POLICY.backoff
        assert bench.orders("a") == ()
        assert bench.orders("b") == (0,)

    def test_a_unit_that_fails_everywhere_ends_the_work_with_its_cause(self) -> None:
        bench = Bench(1)
        bench.join("a")
        for _ in range(POLICY.attempts):
            assert bench.dispatcher.error is None
            bench.now += POLICY.longest_backoff
            assert bench.orders("a") == (0,)
            bench.hear("a", failed={0: unavailable()})
        assert isinstance(bench.dispatcher.error, StoreUnavailable)
        assert bench.kinds().count("retried") == POLICY.attempts - 1

    @pytest.mark.parametrize("error", [AccessDenied("reading"), UploadGone("sending")])
    def test_what_no_retry_helps_ends_it_at_once(self, error: PlaitError) -> None:
        bench = Bench(1)
        bench.join("a")
        bench.orders("a")
        bench.hear("a", failed={0: error})
        assert bench.dispatcher.error is error
        assert not bench.told

    def test_a_unit_that_workers_die_of_ends_it(self) -> None:
        bench = Bench(1)
        for life in range(POLICY.losses):
            assert bench.dispatcher.error is None
            bench.now += POLICY.longest_backoff
            bench.join(str(life))
            assert bench.orders(str(life)) == (0,)
            bench.hear(str(life), running=(0,))
            bench.dispatcher.lost(str(life), bench.now, blame="out of memory")
        assert bench.dispatcher.error is not None
        assert bench.dispatcher.error.kind == "worker-lost"
        assert "out of memory" in str(bench.dispatcher.error)

    def test_nodes_that_die_are_no_units_fault(self) -> None:
        bench = Bench(1)
        for life in range(10 * POLICY.losses):
            bench.join(str(life))
            assert bench.orders(str(life)) == (0,)
            bench.hear(str(life), running=(0,))
            bench.dispatcher.lost(str(life), bench.now)
        assert bench.dispatcher.error is None

    def test_silence_gives_work_to_others_and_a_late_result_still_counts(self) -> None:
        bench = Bench(2)
        bench.join("a", "b")
        assert bench.orders("a") == (0, 1)
        for _ in range(9):
            bench.now += 1.0
            bench.dispatcher.tick(bench.now)
            bench.hear("b")
        assert ("worker-silent", None, "a") in bench.told
        assert bench.orders("b") == (0, 1)
        assert bench.hear("a", done={0: 9.0}) == [0]
        assert bench.dispatcher.held_by("b") == (1,)

    def test_a_driver_that_slept_blames_nobody(self) -> None:
        bench = Bench(2)
        bench.join("a")
        bench.dispatcher.tick(bench.now)
        bench.orders("a")
        bench.now += 3600
        bench.dispatcher.tick(bench.now)
        assert not bench.told

    def test_a_draining_worker_keeps_what_it_has_begun_and_gets_nothing_new(self) -> None:
        bench = Bench(10)
        bench.join("a")
        bench.orders("a")
        bench.hear("a", running=(0,))
        bench.dispatcher.drain("a")
        assert bench.orders("a") == (0,)
        bench.hear("a", done={0: 1.0})
        assert bench.orders("a") == ()


def test_durations() -> None:
    durations = Durations()
    for seconds in range(4):
        durations.add(seconds)
    assert durations.quantile(0.5) is None
    for seconds in range(4, 100):
        durations.add(seconds)
    assert durations.quantile(0.5) == pytest.approx(50, abs=5)
    assert durations.quantile(0.9) == pytest.approx(90, abs=10)


@dataclass
class Model:
    """A worker as it is, whatever the dispatcher believes."""

    slots: int
    todo: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    drained: bool = False


class Machine(RuleBasedStateMachine):
    """Workers that come and go, answer late or never, fail and are blamed."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(12)
        self.dispatcher = self.bench.dispatcher
        self.workers: dict[str, Model] = {}
        self.counted: list[int] = []
        self.made = 0

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.workers)))

    @precondition(lambda self: len(self.workers) < 4)
    @rule(slots=st.integers(1, 3))
    def join(self, slots: int) -> None:
        self.made += 1
        name = f"w{self.made}"
        self.workers[name] = Model(slots)
        self.bench.join(name, slots=slots)

    @rule(seconds=st.floats(0, 12))
    def time_passes(self, seconds: float) -> None:
        while seconds > 0:
            self.bench.now += min(seconds, 0.9)
            seconds -= 0.9
            self.dispatcher.tick(self.bench.now)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        name = self.pick(data)
        worker = self.workers[name]
        before = set(self.dispatcher.held_by(name))
        orders = self.bench.orders(name)
        assert len(set(orders)) == len(orders) <= POLICY.most
        assert not set(orders) & set(self.counted)
        if worker.drained:
            assert set(orders) <= before
        worker.todo = [unit for unit in orders if unit not in worker.begun]
        while worker.todo and len(worker.begun) < worker.slots:
            worker.begun.append(worker.todo.pop(0))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        name = self.pick(data)
        worker = self.workers[name]
        ended = data.draw(st.lists(st.sampled_from(worker.begun), unique=True)) if worker.begun else []
        worker.begun = [unit for unit in worker.begun if unit not in ended]
        failed = ended[:1] if fails else []
        done = [unit for unit in ended if unit not in failed]
        first = self.bench.hear(
            name,
            done=dict.fromkeys(done, 1.0),
            failed=dict.fromkeys(failed, InternalError("a bug")),
            running=tuple(worker.begun),
        )
        assert set(first) == set(done) - set(self.counted)
        self.counted += first

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        name = self.pick(data)
        self.workers[name].drained = True
        self.dispatcher.drain(name)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), blame=st.none() | st.just("it died"))
    def lose(self, data: st.DataObject, blame: str | None) -> None:
        name = self.pick(data)
        del self.workers[name]
        self.dispatcher.lost(name, self.bench.now, blame=blame)

    @invariant()
    def every_unit_is_somewhere(self) -> None:
        d = self.dispatcher
        held: dict[int, int] = {}
        for worker in d._workers.values():
            for unit in worker.held:
                held[unit] = held.get(unit, 0) + 1
        assert all(count <= 2 for count in held.values())
        assert {unit: len(names) for unit, names in d._holders.items() if names} == held
        later = [unit for _, _, unit in d._later if unit in d._open]
        queued = [unit for unit in (*d._fresh, *d._again) if unit in d._open and unit not in held]
        waiting = [unit for unit in later if unit not in held]
        assert sorted([*held, *queued, *waiting]) == sorted(d._open)
        assert d._open == set(range(12)) - set(self.counted)

    @invariant()
    def who_is_not_fed_holds_only_what_it_had(self) -> None:
        for worker in self.dispatcher._workers.values():
            if worker.silent:
                assert not worker.held

    def teardown(self) -> None:
        """One good worker is enough."""
        for name in self.workers:
            self.dispatcher.lost(name, self.bench.now)
        self.bench.join("good")
        for _ in range(200):
            if self.dispatcher.is_finished or self.dispatcher.error is not None:
                break
            self.bench.now += 0.9
            self.dispatcher.tick(self.bench.now)
            self.counted += self.bench.hear("good", done=dict.fromkeys(self.bench.orders("good"), 0.5))
        assert self.dispatcher.error is not None or sorted(self.counted) == list(range(12))


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestMachine = Machine.TestCase
