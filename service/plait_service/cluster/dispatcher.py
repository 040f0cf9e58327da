"""Who does which unit: queue, deadlines, copies, retries. Pure: no Ray, no thread, no clock of its own.

An open unit is in one of three places, and never in none::

    queued      in ``_fresh`` (never tried) or ``_again`` (tried)
    waiting     in ``_later``, until its time comes
    assigned    held by one worker, or by two: the second is a hedge, and the first result wins

Workers come, go silent, drain and are lost; each takes its units back to the queue. What a unit is does
not matter here, nor what a worker is.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from plait.errors import InternalError, PlaitError, WorkerLost
from plait_service.cluster.durations import Durations

U = TypeVar("U")

Tell = Callable[[str, "U | None", str | None], None]
"""(kind of event, unit, worker)."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Numbers that a dispatcher goes by; seconds where no unit is named.

    Args:
        attempts: a unit that failed so often, anywhere, ends the work.
        losses: a unit that so many workers died of ends it, too.
        backoff: before a unit is tried again; twice as long each time, to ``longest_backoff``.
        silence: after which a worker that says nothing counts as gone, until it says something.
        deadline: least time after which a unit is done a second time elsewhere.
        patience: how many times longer than nine of ten units that one must take, too.
        straggler: once the queue is empty: how many times longer than half of the units.
        unknown: what counts as long while nobody knows how long units take.
        lead: of work that a worker holds beyond what it does, so that it never waits.
        most: units that a worker holds.
    """

    attempts: int = 4
    losses: int = 10
    backoff: float = 1.0
    longest_backoff: float = 30.0
    silence: float = 8.0
    deadline: float = 30.0
    patience: float = 5.0
    straggler: float = 1.5
    unknown: float = 10.0
    lead: float = 0.5
    most: int = 1024


@dataclass
class _Held:
    """A unit in a worker's hands; ``begun`` is None while it only lies there."""

    begun: float | None = None


@dataclass
class _Worker(Generic[U]):
    slots: int
    heard: float
    held: dict[U, _Held] = field(default_factory=dict)
    rate: float = 0.0
    draining: bool = False
    silent: bool = False

    @property
    def is_fed(self) -> bool:
        return not (self.draining or self.silent)


@dataclass
class _Trouble:
    """What went wrong with a unit so far, and with whom."""

    failures: int = 0
    losses: int = 0
    shunned: set[str] = field(default_factory=set)


class Dispatcher(Generic[U]):
    """Decides; whoever owns it does what it says.

    Args:
        units: what is to be done, in this order.
        policy: numbers.
        tell: told what happens.
        describe: how errors name a unit.
        jitter: a number from 0 to 1, drawn anew for each wait.
    """

    def __init__(
        self,
        units: Iterable[U],
        *,
        policy: Policy | None = None,
        tell: Tell[U] = lambda _kind, _unit, _worker: None,
        describe: Callable[[U], str] = str,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy or Policy()
        self._tell = tell
        self._describe = describe
        self._jitter = jitter
        self._fresh: deque[U] = deque(units)
        self._open: set[U] = set(self._fresh)
        self._again: deque[U] = deque()
        self._later: list[tuple[float, int, U]] = []
        self._overdue: deque[U] = deque()
        self._numbers = itertools.count()
        self._holders: dict[U, list[str]] = {}
        self._trouble: dict[U, _Trouble] = {}
        self._workers: dict[str, _Worker[U]] = {}
        self._durations = Durations()
        self._ticked: float | None = None
        self.error: PlaitError | None = None
        """What ends the work, if something does."""

    @property
    def is_finished(self) -> bool:
        """Whether every unit is done."""
        return not self._open

    @property
    def num_open(self) -> int:
        """Units that are not done."""
        return len(self._open)

    def is_open(self, unit: U) -> bool:
        """Whether a unit is not done."""
        return unit in self._open

    def held_by(self, worker: str) -> tuple[U, ...]:
        """What a worker should have now."""
        return tuple(self._workers[worker].held) if worker in self._workers else ()

    # Workers come and go.

    def joined(self, worker: str, slots: int, now: float) -> None:
        """A worker is ready for ``slots`` units at once."""
        self._workers[worker] = _Worker(slots=slots, heard=now)

    def drain(self, worker: str) -> None:
        """Give a worker nothing new; what it has begun it may finish."""
        if worker in self._workers and not self._workers[worker].draining:
            self._workers[worker].draining = True
            self._take_back(worker, begun=False)

    def lost(self, worker: str, now: float, *, blame: str | None = None) -> None:
        """A worker is gone.

        Args:
            blame: what it died of, if one of its units may have killed it.
        """
        held = dict(self._workers[worker].held) if worker in self._workers else {}
        self._take_back(worker, queue=False)
        self._workers.pop(worker, None)
        for unit, state in held.items():
            if blame is not None and state.begun is not None:
                self._died(unit, blame, now)
            elif not self._holders.get(unit):
                self._queue(unit, state)

    def tick(self, now: float) -> None:
        """Time passes: notice silence, and units that take too long.

        While nobody called this, nobody listened either: that counts as no one's silence.
        """
        if self._ticked is not None and now - self._ticked > 1.0:
            for state in self._workers.values():
                state.heard += now - self._ticked
        self._ticked = now
        for name, state in self._workers.items():
            if not state.silent and now - state.heard > self._policy.silence:
                state.silent = True
                self._tell("worker-silent", None, name)
                self._take_back(name)
        self._notice_overdue(now)

    # What workers say.

    def heard(
        self,
        worker: str,
        now: float,
        *,
        done: Mapping[U, float],
        failed: Mapping[U, PlaitError],
        running: Iterable[U],
    ) -> list[U]:
        """A worker answered.

        Args:
            done: seconds that each finished unit took.
            failed: why.
            running: what it has begun.

        Returns:
            The units that are done with this: of several results of one unit only the first counts.
        """
        state = self._workers.get(worker)
        if state is not None:
            if state.silent:
                self._tell("worker-heard", None, worker)
            self._measure(state, len(done), now)
            state.heard, state.silent = now, False
            for unit in running:
                held = state.held.get(unit)
                if held is not None and held.begun is None:
                    held.begun = now
        first = [unit for unit in done if unit in self._open]
        for unit in first:
            self._open.discard(unit)
            self._trouble.pop(unit, None)
            self._durations.add(done[unit])
            for holder in self._holders.pop(unit, []):
                self._workers[holder].held.pop(unit, None)
        for unit, error in failed.items():
            self._failed(unit, worker, error, now)
        return first

    def _measure(self, state: _Worker[U], done: int, now: float) -> None:
        """Units a second of a worker, smoothed over about a second."""
        passed = max(now - state.heard, 1e-3)
        state.rate += (done / passed - state.rate) * (1 - math.exp(-passed))

    def _failed(self, unit: U, worker: str, error: PlaitError, now: float) -> None:
        if unit not in self._open:
            return
        had = worker in self._holders.get(unit, ())  # else it was taken back, and is queued, or elsewhere
        self._let_go(unit, worker)
        trouble = self._trouble.setdefault(unit, _Trouble())
        trouble.failures += 1
        trouble.shunned.add(worker)
        if trouble.failures >= self._policy.attempts or not helps_again(error):
            self.error = self.error or error
        if had:
            self._wait(unit, trouble.failures, now)

    def _died(self, unit: U, blame: str, now: float) -> None:
        trouble = self._trouble.setdefault(unit, _Trouble())
        trouble.losses += 1
        if trouble.losses >= self._policy.losses:
            self.error = self.error or WorkerLost(
                f"{trouble.losses} workers died while they did this part",
                where=self._describe(unit),
                found=blame,
                hint="Run the merge again with more memory for each worker, or with fewer units at once",
            )
        if not self._holders.get(unit):
            self._wait(unit, trouble.losses, now)

    def _wait(self, unit: U, times: int, now: float) -> None:
        """Back to the queue after a while, unless somebody else has it."""
        if self._holders.get(unit):
            return
        if self.error is None:
            self._tell("retried", unit, None)
        longest = min(self._policy.longest_backoff, self._policy.backoff * 2 ** (times - 1))
        due = now + longest * (0.5 + self._jitter() / 2)
        heapq.heappush(self._later, (due, next(self._numbers), unit))

    # Who gets what.

    def orders(self, worker: str, now: float) -> tuple[U, ...]:
        """All that a worker should have from now on."""
        state = self._workers[worker]
        while self._later and self._later[0][0] <= now:
            self._again.append(heapq.heappop(self._later)[2])
        if state.is_fed:
            ahead = max(1, math.ceil(state.rate * self._policy.lead))
            wanted = min(self._policy.most, state.slots + ahead)
            while len(state.held) < wanted and (unit := self._next(worker)) is not None:
                self._assign(unit, worker)
            while len(state.held) < state.slots and (unit := self._second(worker, now)) is not None:
                self._assign(unit, worker)
        return tuple(state.held)

    def _assign(self, unit: U, worker: str) -> None:
        self._workers[worker].held[unit] = _Held()
        self._holders.setdefault(unit, []).append(worker)

    def _next(self, worker: str) -> U | None:
        """What is overdue elsewhere, or queued; what failed here goes to another, if there is one."""
        for _ in range(len(self._overdue)):
            unit = self._overdue.popleft()
            if self._may_hedge(unit, worker):
                self._tell("hedged", unit, worker)
                return unit
            if unit in self._open and len(self._holders.get(unit, ())) == 1:
                self._overdue.append(unit)
        for _ in range(len(self._again)):
            unit = self._again.popleft()
            if unit not in self._open or self._holders.get(unit):
                continue
            if self._is_for(unit, worker):
                return unit
            self._again.append(unit)
        while self._fresh:
            unit = self._fresh.popleft()
            if unit in self._open:
                return unit
        return None

    def _is_for(self, unit: U, worker: str) -> bool:
        trouble = self._trouble.get(unit)
        if trouble is None or worker not in trouble.shunned:
            return True
        return all(name in trouble.shunned for name, state in self._workers.items() if state.is_fed)

    def _second(self, worker: str, now: float) -> U | None:
        """Once the queue is empty: what another has not begun, or takes long with."""
        if self._fresh or self._again:  # not for this worker
            return None
        return self._steal(worker) or self._hedge(worker, now)

    def _may_hedge(self, unit: U, worker: str) -> bool:
        holders = self._holders.get(unit, ())
        return len(holders) == 1 and worker not in holders and self._is_for(unit, worker)

    def _steal(self, worker: str) -> U | None:
        """What lies longest in the hands of whoever has most lying there."""
        lying = {
            name: [unit for unit, held in state.held.items() if held.begun is None]
            for name, state in self._workers.items()
            if name != worker and len(state.held) > state.slots
        }
        for name in sorted(lying, key=lambda name: -len(lying[name])):
            for unit in reversed(lying[name]):
                if len(self._holders[unit]) == 1 and self._is_for(unit, worker):
                    self._let_go(unit, name)
                    return unit
        return None

    def _hedge(self, worker: str, now: float) -> U | None:
        """What another does for longest, if that is longer than usual."""
        usual = self._durations.quantile(0.5)
        long = self._policy.unknown if usual is None else max(1.0, self._policy.straggler * usual)
        begun = [
            (since, unit) for since, unit, name in self._begun() if name != worker and now - since >= long
        ]
        for _, unit in sorted(begun, key=lambda each: each[0]):
            if self._may_hedge(unit, worker):
                self._tell("hedged", unit, worker)
                return unit
        return None

    def _begun(self) -> Iterator[tuple[float, U, str]]:
        for name, state in self._workers.items():
            for unit, held in state.held.items():
                if held.begun is not None:
                    yield held.begun, unit, name

    def _notice_overdue(self, now: float) -> None:
        usual = self._durations.quantile(0.9)
        if usual is None:
            return
        long = max(self._policy.deadline, self._policy.patience * usual)
        waiting = set(self._overdue)
        for since, unit, _ in self._begun():
            if now - since > long and len(self._holders[unit]) == 1 and unit not in waiting:
                self._overdue.append(unit)

    # Units that come back.

    def _let_go(self, unit: U, worker: str) -> None:
        holders = self._holders.get(unit, [])
        if worker in holders:
            holders.remove(worker)
        if worker in self._workers:
            self._workers[worker].held.pop(unit, None)

    def _take_back(self, worker: str, *, begun: bool = True, queue: bool = True) -> None:
        """Units from a worker's hands; ``begun`` false leaves those that it has begun."""
        state = self._workers.get(worker)
        for unit, held in list(state.held.items()) if state else ():
            if begun or held.begun is None:
                self._let_go(unit, worker)
                if queue and not self._holders.get(unit):
                    self._queue(unit, held)

    def _queue(self, unit: U, held: _Held) -> None:
        self._holders.pop(unit, None)
        if unit in self._open:
            self._again.append(unit)
            if held.begun is not None:
                self._tell("retried", unit, None)


def helps_again(error: PlaitError) -> bool:
    """Whether the same unit may succeed elsewhere, or later."""
    return error.retryable or isinstance(error, InternalError)
