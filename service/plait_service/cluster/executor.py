"""Runs units on a Ray cluster: a loop between workers' answers and the dispatcher's decisions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import ray

from plait import __version__
from plait.errors import Cancelled
from plait_service.cluster.actor import DriverCounters, WorkerActor
from plait_service.cluster.connect import no_cluster
from plait_service.cluster.dispatcher import Dispatcher, Policy
from plait_service.cluster.messages import Answer, Begin, Hello, Orders, Setup, boot_id
from plait_service.cluster.pool import Life, Pool
from plait_service.cluster.ray_errors import End, cause_of, end_of, ray_errors, unsuitable
from plait_service.cluster.resources import Resources
from plait_service.cluster.view import View
from plait_service.events import Events
from plait_service.executor import Work
from plait_service.prepare import Prepared
from plait_workers.job import Unit

WAIT: Final = 0.1
"""Seconds between two looks at what is not an answer."""
PATIENCE: Final = 600.0
"""Seconds without any worker after which a merge ends: longer than a node takes to be had."""
WARN_AFTER: Final = 15.0
_ASK_AGAIN: Final = 0.5
_SHORTEST_HOLD: Final = 0.02
_LONGEST_HOLD: Final = 0.5
_HOLD_A_WORKER: Final = 0.002
"""Seconds that an answer waits for more results, for each worker: the driver hears 500 answers a second."""


class RayExecutor:
    """Runs units on actors. Its process is a driver of a Ray cluster already.

    Args:
        prepared: the merge; workers open its stores anew, from their URIs, with their own credentials.
        resources: how many workers, how large, where.
        events: told what happens to workers and units.
        policy: of retries, deadlines and copies.
        patience: seconds without any worker after which it gives up.
        actor: the class of workers; benchmarks have one that does nothing.
    """

    def __init__(
        self,
        prepared: Prepared,
        resources: Resources,
        *,
        events: Events | None = None,
        policy: Policy | None = None,
        patience: float = PATIENCE,
        actor: type[WorkerActor] = WorkerActor,
    ) -> None:
        self._job = prepared.plan.job
        self._events = events or Events(self._job.fingerprint)
        self._resources = resources
        self._policy = policy
        self._patience = patience
        self._counters = DriverCounters(self._job.fingerprint[:12])
        setup = Setup(
            version=__version__,
            boot=boot_id(),
            sources=prepared.source_uris,
            output=prepared.plan.spec.output,
            storage=prepared.plan.spec.storage,
            memory=resources.memory,
            cpus=resources.cpus or 0,
        )
        with ray_errors("sending the plan to the cluster", "Ray"):
            self._view = View()
            self._pool = Pool(setup, self._job, resources, actor)
        self._rounds = 0
        self._round: _Round | None = None

    def run(self, work: Work) -> None:
        """As the protocol says.

        Raises:
            ClusterUnavailable: there was no worker for too long, or the head is gone.
            ClusterUnsuitable: a worker could not make the same bytes.
            WorkerLost: workers die of a part.
            PlaitError: of a unit that failed everywhere.
        """
        if not work.units:
            return
        self._rounds += 1
        self._round = _Round(self, work, self._rounds)
        try:
            with ray_errors("merging on the cluster", "Ray"):
                self._round.run()
        except BaseException:
            work.stop.set()
            self._pool.close()
            raise

    def state(self) -> Mapping[str, Any]:
        """Workers, and by node what they have read and written."""
        nodes: dict[str, dict[str, int]] = {}
        lives = self._pool.lives
        for life in lives:
            found = nodes.setdefault(life.place.name, {"workers": 0, "bytes_read": 0, "bytes_written": 0})
            found["workers"] += life.hello is not None
            found["bytes_read"] += life.read
            found["bytes_written"] += life.written
        workers = sum(life.hello is not None for life in lives)
        return {"workers": workers, "nodes": nodes}

    def close(self) -> None:
        """End all workers."""
        self._view.close()
        self._pool.close()


class _Round:
    """One run of all units that are left."""

    def __init__(self, owner: RayExecutor, work: Work, number: int) -> None:
        self._pool = owner._pool
        self._view = owner._view
        self._events = owner._events
        self._counters = owner._counters
        self._resources = owner._resources
        self._patience = owner._patience
        self._work = work
        self._number = number
        self._uploads = tuple(work.uploads)
        self._credit: dict[Unit, int] = {}
        self._alone_since: float | None = time.monotonic()
        self._warned = False
        shards = owner._job.shards
        self._dispatcher: Dispatcher[Unit] = Dispatcher(
            work.units,
            policy=owner._policy,
            tell=self._tell,
            describe=lambda unit: f"{shards[unit.shard].key}, part {unit.number}",
        )

    def run(self) -> None:
        """Until all is done."""
        for life in self._pool.lives:  # of the round before
            self._begin(life)
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
        for life in self._pool.begin_missing(nodes, now):
            self._begin(life)
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
        begin = Begin(number=self._number, uploads=self._uploads, shrink=life.place.shrink)
        life.call, life.asked = life.actor.begin.remote(begin), time.monotonic()

    def _end(self, life: Life, end: End, kind: str, now: float) -> None:
        blame = end.value if end in (End.MEMORY, End.DIED) else None
        self._dispatcher.lost(life.name, now, blame=blame)
        self._pool.end(life, now, out_of_memory=end is End.MEMORY)
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
            self._work.on_done(record)
        for unit, made in answer.running.items():
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
    return isinstance(error, ray.exceptions.ActorUnavailableError | ray.exceptions.GetTimeoutError)
