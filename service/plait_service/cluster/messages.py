"""What a driver and its workers tell each other.

A driver says *all* that a worker should have; the worker says what became of it since. Both can be said
again at any time: a message that is lost, or comes twice, changes nothing::

    begin   uploads and how much memory to take  ->  Hello: who and where it is, how many units at once
    sync    every unit that it should have       ->  Answer: results, what runs, what was read and written

A worker answers as soon as it has results, and at the latest after a second: its answers are its heartbeat.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plait.errors import PlaitError
from plait.spec_storage import StorageSpec
from plait_workers.job import Job, Unit
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import Upload


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is the same for all workers of a merge, and for all of their lives.

    Args:
        version: of Plait; a worker of another one could make other bytes.
        boot: which machine's which start the driver lives in; see :func:`boot_id`.
        sources, output: URIs, in the job's order.
        storage: how their stores are spoken to.
        memory: bytes for the buffers of each; None for what the worker finds.
        cpus: processors of each.
    """

    version: str
    boot: str
    sources: tuple[str, ...]
    output: str
    storage: StorageSpec
    memory: int | None
    cpus: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """The start of a round of work.

    Args:
        number: of the round; results of another one do not count.
        uploads: of each shard.
        shrink: how many times an earlier life ran out of memory; each halves what this one takes.
    """

    number: int
    uploads: tuple[Upload, ...]
    shrink: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """Who answers.

    Args:
        version: of Plait.
        pid, host: of the process.
        slots: units that it does side by side.
        peak: bytes that their buffers take at most.
    """

    version: str
    pid: int
    host: str
    slots: int
    peak: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """All that a worker should have.

    Args:
        number: of the round.
        units: in order; those that it has not begun and that are not among them it drops.
        seen: results up to this number have arrived, and need not be told again.
        hold: seconds for which the answer may wait for more results.
    """

    number: int
    units: tuple[Unit, ...]
    seen: int
    hold: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of a unit.

    Args:
        number: of the result, growing by one.
        seconds: that it took.
        record: of the finished part; None if it failed.
        error: why it failed.
        out_of_memory: there was no memory for it.
    """

    number: int
    unit: Unit
    seconds: float
    record: PartRecord | None = None
    error: PlaitError | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What a worker's life has read and written, in bytes, and what its threads spent, in seconds."""

    read: int = 0
    written: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of a worker's units.

    Args:
        number: of the round.
        results: that the driver has not seen.
        running: bytes made, of each unit that is begun and not finished.
        totals: since this life began.
    """

    number: int
    results: tuple[Result, ...]
    running: Mapping[Unit, int]
    totals: Totals


def boot_id() -> str:
    """What two processes share exactly if they run on one machine, and so one page cache."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def pack(job: Job) -> bytes:
    """A job as it is sent: offsets of many tensors in many sources take a fifth when compressed."""
    return zlib.compress(pickle.dumps(job, protocol=5), 1)


def unpack(data: bytes) -> Job:
    """The inverse of :func:`pack`."""
    job = pickle.loads(zlib.decompress(data))
    assert isinstance(job, Job)
    return job
