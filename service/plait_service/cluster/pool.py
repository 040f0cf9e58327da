"""The lives of workers: one on each node that fits, or a fixed number of them anywhere.

A *place* is where a worker belongs: a node, or one of N numbers. It has one life at a time, an actor
of its own; after one has ended the next begins, later each time if they end without doing anything.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import NodeDiedError

from plait_service.cluster.actor import CALLS, WorkerActor
from plait_service.cluster.messages import Hello, Setup, pack
from plait_service.cluster.resources import Resources
from plait_service.cluster.view import Node
from plait_workers.job import Job

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
_PARTING: Final = 1.5
"""Seconds that all workers together may take to be ended."""
NODE_LABEL: Final = "ray.io/node-id"
"""A label that Ray gives each node."""


@dataclass
class Place:
    """Where a worker belongs.

    Args:
        node: its id; None if any will do.
        deaths: lives in a row that ended without a result.
        shrink: lives that ended for want of memory, or may have: what the kernel kills says nothing, so
            that every death but the first of some in a row counts.
    """

    name: str
    node: str | None
    due: float = 0.0
    deaths: int = 0
    shrink: int = 0
    life: Life | None = None

    def lost(self, now: float, *, has_done: bool, died: bool, out_of_memory: bool) -> None:
        """Its life ended; when the next begins, and with how much."""
        self.life = None
        self.deaths = 0 if has_done else self.deaths + 1
        self.shrink += out_of_memory or (died and self.deaths > 1)
        self.due = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self.deaths, 10))


@dataclass
class Life:
    """One actor.

    Args:
        name: of this life, which no other has.
        actor: None until Ray has made it; ``error`` says why it cannot.
        node: where it lives; None until it says so.
        call: the answer that is awaited; None between two calls.
        hello: what it said of itself; None until then.
        draining: it gets nothing new.
    """

    name: str
    place: Place
    began: float
    node: str | None
    actor: Any = None
    error: Exception | None = None
    is_over: bool = False
    call: Any = None
    asked: float = 0.0
    ask_at: float = 0.0
    hello: Hello | None = None
    seen: int = 0
    draining: bool = False
    has_done: bool = False
    read: int = 0
    written: int = 0
    credit: dict[Any, int] = field(default_factory=dict)


class Pool:
    """Makes actors, and lets them go. Knows nothing of units.

    Args:
        setup: for each worker.
        job: of the merge; put into Ray's object store once.
        resources: what is wanted.
        actor: the class of workers.
    """

    def __init__(self, setup: Setup, job: Job, resources: Resources, actor: type[WorkerActor]) -> None:
        self._actor = ray.remote(actor)
        self._setup = setup
        self._resources = resources
        self._job = ray.put(pack(job))
        self._places: dict[str, Place] = {}
        self._lives: dict[str, Life] = {}
        self._numbers = itertools.count()
        if resources.workers is not None:
            names = [str(number) for number in range(resources.workers)]
            self._places = {name: Place(name, None) for name in names}

    @property
    def lives(self) -> Sequence[Life]:
        """All that have begun and not ended."""
        return list(self._lives.values())

    def life(self, name: str) -> Life | None:
        """By its name."""
        return self._lives.get(name)

    def begin_missing(self, nodes: Mapping[str, Node], now: float) -> None:
        """Begin a life in each place that has none and is due."""
        fitting = self._resources.fitting(nodes.values())
        if self._resources.workers is None:
            for node in fitting:
                self._places.setdefault(node.id, Place(node.name, node.id))
        fits = {node.id for node in fitting}
        for place in self._places.values():
            if place.life is None and now >= place.due and (place.node is None or place.node in fits):
                self._begin(place, fitting, nodes, now)

    def _begin(self, place: Place, fitting: Sequence[Node], nodes: Mapping[str, Node], now: float) -> None:
        own = [nodes[place.node]] if place.node is not None else fitting
        cpus = self._resources.cpus_on(own)
        setup = Setup(**{name: getattr(self._setup, name) for name in Setup.__slots__} | {"cpus": cpus})
        where = {NODE_LABEL: place.node} if place.node is not None else {}
        name = f"{place.name}#{next(self._numbers)}"
        options = {
            "num_cpus": cpus,
            "memory": self._resources.memory,
            "label_selector": {**self._resources.labels, **where} or None,
            "scheduling_strategy": None if where else "SPREAD",
            "max_concurrency": CALLS,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        made = {key: value for key, value in options.items() if value is not None}
        life = Life(name, place, now, place.node)
        place.life = self._lives[life.name] = life
        _aside(partial(self._create, life, made, setup, own[0] if place.node is not None else None))

    def _create(self, life: Life, options: dict[str, Any], setup: Setup, node: Node | None) -> None:
        """Make the actor. Ray waits here, for minutes, where a node has just died: look first."""
        try:
            if node is not None and not node.answers():
                raise NodeDiedError(f"nobody answers on {node.name}")  # type: ignore[no-untyped-call]
            life.actor = self._actor.options(**options).remote(setup, self._job, life.place.name)
        except Exception as error:
            life.error = error
            return
        if life.is_over:
            kill(life)

    def leave(self, life: Life) -> None:
        """This one is no longer of its place, and may end in peace; the place gets another."""
        life.draining = True
        if life.place.life is life:
            life.place.life = None

    def end(self, life: Life, now: float, *, died: bool = False, out_of_memory: bool = False) -> None:
        """A life ended, or is ended now."""
        self._lives.pop(life.name, None)
        if life.place.life is life:
            life.place.lost(now, has_done=life.has_done, died=died, out_of_memory=out_of_memory)
        life.is_over = True
        _aside(partial(kill, life))

    def close(self) -> None:
        """End all; who does not answer is not waited for."""
        for life in self.lives:
            life.is_over = True
        killers = [_aside(partial(kill, life)) for life in self.lives]
        deadline = time.monotonic() + _PARTING
        for killer in killers:
            killer.join(max(0.0, deadline - time.monotonic()))
        self._lives.clear()
        for place in self._places.values():
            place.life = None


def kill(life: Life) -> None:
    """At once; what it has begun is lost."""
    if life.actor is None:
        return
    try:
        ray.kill(life.actor, no_restart=True)
    except Exception:  # the cluster is gone, and the actor with it
        return


def _aside(task: Callable[[], None]) -> threading.Thread:
    """Do what may wait for Ray on a thread of its own: who merges must not."""
    thread = threading.Thread(target=task, name="plait-pool", daemon=True)
    thread.start()
    return thread
