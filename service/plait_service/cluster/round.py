"""One run of all units that are left: a loop between workers' answers and the dispatcher's decisions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import ray
from ray.exceptions import ActorUnavailableError, RayError

from plait.errors import Cancelled
from plait_service.cluster.actor import DriverCounters
from plait_service.cluster.connect import no_cluster
from plait_service.cluster.dispatcher import Dispatcher, Policy
from plait_service.cluster.messages import Answer, Begin, Hello, Orders
from plait_service.cluster.pool import Life, Pool
from plait_service.cluster.ray_errors import End, cause_of, end_of, unsuitable
from plait_service.cluster.resources import Resources
from plait_service.cluster.view import View
from plait_service.events import Events
from plait_service.executor import Work
from plait_workers.job import Job, Unit

WAIT: Final = 0.1
"""Seconds between two looks at what is not an answer."""
WARN_AFTER: Final = 15.0
"""Seconds without a worker after which an event says what is waited for."""
_ASK_AGAIN: Final = 0.5
_SHORTEST_HOLD: Final = 0.02
_LONGEST_HOLD: Final = 0.5
_HOLD_A_WORKER: Final = 0.002
"""Seconds that an answer waits for more results, for each worker: the driver hears 500 answers a second."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What outlives a round.

    Args:
        job: what is made.
        pool, view: workers, and the nodes that they live on.
        resources: what is wanted.
        events, counters: told what happens.
        policy: of retries, deadlines and copies.
        patience: seconds without any worker after which it ends.
    """

    job: Job
    pool: Pool
    view: View
    resources: Resources
    events: Events
    counters: DriverCounters
    policy: Policy | None
    patience: float


class Round:
    """Runs all units of one piece of work.

    Args:
        cluster: workers.
        work: what is to be done.
        number: which tells its answers from those of other rounds.
    """

    def __init__(self, cluster: Cluster, work: Work, number: int) -> None:
        self._pool, self._view = cluster.pool, cluster.view
        self._events, self._counters = cluster.events, cluster.counters
        self._resources, self._patience = cluster.resources, cluster.patience
        self._work = work
        self._number = number
        self._uploads = tuple(work.uploads)
        self._credit: dict[Unit, int] = {}
        self._alone_since: float | None = time.monotonic()
        self._warned = False
        shards = cluster.job.shards
        self._dispatcher: Dispatcher[Unit] = Dispatcher(
            work.units,
            policy=cluster.policy,
            tell=self._tell,
            describe=lambda unit: f"{shards[unit.shard].key}, part {unit.number}",
        )

    def run(self) -> None:
        """Until all is done."""
        for life in self._pool.lives:  # of the round before
            life.hello, life.call = None, None
        while not self._dispatcher.is_finished:
            if self._work.stop.is_set():
                raise Cancelled("stopped")
            now = time.monotonic()
            self._keep_workers(now)
            self._ask_all(now)
            self._hear(self._answered())
            self._dispatcher.tick(time.monotonic())
            if self._dispatcher.error is not None:
                raise self._dispatcher.error

    def _tell(self, kind: str, unit: Unit | None, worker: str | None) -> None:
        life = self._pool.life(worker) if worker is not None else None
        node = life.place.name if life is not None else None
        self._events.tell(kind, unit=unit, node=node)
        if kind == "retried":
            self._counters.retried(node or "")

    # Workers' lives.

    def _keep_workers(self, now: float) -> None:
        nodes = self._view.nodes
        for life in self._pool.lives:
            if life.node is None:
                continue
            if life.node not in nodes:
                self._end(life, End.NODE, "node-lost", now)
            elif nodes[life.node].draining and not life.draining:
                self._events.tell("draining", node=life.place.name)
                self._pool.leave(life)
                self._dispatcher.drain(life.name)
            elif life.draining and not self._dispatcher.held_by(life.name):
                self._end(life, End.NOT, "node-left", now)
        self._pool.begin_missing(nodes, now)
        self._notice_loneliness(now)

    def _notice_loneliness(self, now: float) -> None:
        if any(life.hello is not None for life in self._pool.lives):
            self._alone_since, self._warned = None, False
            return
        self._alone_since = self._alone_since or now
        alone = now - self._alone_since
        if alone > WARN_AFTER and not self._warned:
            self._warned = True
            self._events.tell("waiting", wanted=str(self._resources))
        if alone > self._patience:
            raise no_cluster(alone, str(self._resources))

    def _begin(self, life: Life) -> None:
        life.hello, life.seen = None, 0
        if life.actor is None:  # being made, or impossible
            if isinstance(life.error, RayError):
                self._end(life, End.NODE, "worker-lost", time.monotonic())
            elif life.error is not None:
                raise unsuitable(life.error, life.place.name)
            return
        begin = Begin(number=self._number, uploads=self._uploads, shrink=life.place.shrink)
        life.call, life.asked = life.actor.begin.remote(begin), time.monotonic()

    def _end(self, life: Life, end: End, kind: str, now: float) -> None:
        blame = end.value if end in (End.MEMORY, End.DIED) else None
        self._dispatcher.lost(life.name, now, blame=blame)
        self._pool.end(life, now, died=end is End.DIED, out_of_memory=end is End.MEMORY)
        if life.draining and end is End.NODE:  # as it said that it would
            kind = "node-left"
        if life.hello is None and end is End.NODE:  # nobody ever heard of it
            return
        self._events.tell(kind, node=life.place.name, found=end.value)

    # Calls and answers.

    def _ask_all(self, now: float) -> None:
        for life in self._pool.lives:
            if life.call is None and now >= life.ask_at:
                if life.hello is None:
                    self._begin(life)
                else:
                    self._sync(life, now)

    def _sync(self, life: Life, now: float) -> None:
        hold = _HOLD_A_WORKER * len(self._pool.lives)
        orders = Orders(
            number=self._number,
            units=self._dispatcher.orders(life.name, now),
            seen=life.seen,
            hold=min(_LONGEST_HOLD, max(_SHORTEST_HOLD, hold)),
        )
        life.call, life.asked = life.actor.sync.remote(orders), now

    def _answered(self) -> Sequence[Life]:
        waiting = {life.call: life for life in self._pool.lives if life.call is not None}
        if not waiting:
            time.sleep(WAIT)
            return []
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=WAIT)
        if ready and len(waiting) > 1:  # and whatever else is there
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        return [waiting[call] for call in ready]

    def _hear(self, lives: Sequence[Life]) -> None:
        for life in lives:
            call, life.call = life.call, None
            now = time.monotonic()
            try:
                answer = ray.get(call)
            except Exception as error:
                self._no_answer(life, error, now)
                continue
            if isinstance(answer, Hello):
                self._joined(life, answer, now)
            elif answer.number == self._number:
                self._result(life, answer, now)
            else:  # of a round that this worker has not begun
                life.hello = None

    def _joined(self, life: Life, hello: Hello, now: float) -> None:
        life.hello = hello
        self._dispatcher.joined(life.name, hello.slots, now)
        self._events.tell(
            "node-joined",
            node=life.place.name,
            host=hello.host,
            pid=hello.pid,
            slots=hello.slots,
            memory=hello.peak,
        )
        self._sync(life, now)

    def _no_answer(self, life: Life, error: Exception, now: float) -> None:
        cause = cause_of(error)
        if cause is not None:  # only beginning raises
            raise cause
        end = end_of(error)
        if end is End.NOT:
            life.ask_at = now + _ASK_AGAIN
            if not _is_unavailable(error):
                raise unsuitable(error, life.place.name)
            return
        if life.hello is None and getattr(error, "actor_init_failed", False):
            raise unsuitable(error, life.place.name)
        kind = "node-lost" if end is End.NODE else "worker-lost"
        self._end(life, end, kind, now)

    def _result(self, life: Life, answer: Answer, now: float) -> None:
        life.read, life.written = answer.totals.read, answer.totals.written
        fresh = [result for result in answer.results if result.number > life.seen]
        if fresh:
            life.seen = fresh[-1].number
        records = {result.unit: result.record for result in fresh if result.record is not None}
        first = self._dispatcher.heard(
            life.name,
            now,
            done={result.unit: result.seconds for result in fresh if result.record is not None},
            failed={result.unit: result.error for result in fresh if result.error is not None},
            running=answer.running,
        )
        for unit in first:
            record = records[unit]
            assert record is not None
            self._made(unit, record.size)
            self._credit.pop(unit, None)
            self._work.on_done(record)
        for unit, made in answer.running.items():
            if self._dispatcher.is_open(unit):  # else this is the slower copy
                self._made(unit, made)
        life.has_done |= bool(records)
        self._counters.done(len(first), life.place.name)
        if any(result.out_of_memory for result in fresh):
            self._end(life, End.MEMORY, "worker-lost", now)

    def _made(self, unit: Unit, made: int) -> None:
        """So much of a unit is made by now: of two copies, the one that is further counts."""
        before = self._credit.get(unit, 0)
        if made > before:
            self._credit[unit] = made
            self._work.on_bytes(made - before, unit)


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, ActorUnavailableError)
