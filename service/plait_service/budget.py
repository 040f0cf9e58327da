"""How much memory a merge takes: ``--memory`` sets steps and threads, never the parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from plait.errors import BudgetTooSmall
from plait.sizes import format_size
from plait_workers.job import Job
from plait_workers.storage.base import ObjectStore
from plait_workers.workspace import workspace_bytes

MIN_STEP: Final = 64 << 10
CACHE_SHARE: Final = 8 << 20
"""Bytes of all sources' steps together: mapped sources want long steps, copied ones a shared cache."""
MAX_STEP: Final = 1 << 20
REMOTE_FACTOR: Final = 2
"""Units side by side on each processor where answers come over a network: one reads while another sends its
part, and each reads K + 1 streams at once. Four took more of both sides' processors, and were slower."""
DEFAULT_CAP: Final = 4 * 10**9
CGROUPS: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Limit and use of a container's memory, under versions 2 and 1 of control groups."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a worker may use.

    Args:
        memory: bytes allowed.
        threads: units run side by side.
        step_bytes: bytes of one source in a step.
        peak: bytes that the buffers take at most, of ``memory``.
    """

    memory: int
    threads: int
    step_bytes: int
    peak: int


def default_memory() -> int:
    """A quarter of the free memory within the container's limit, at most 4 GB."""
    free = psutil.virtual_memory().available
    for limit_file, use_file in CGROUPS:
        limit, used = _read_number(Path(limit_file)), _read_number(Path(use_file))
        if limit is not None:
            free = min(free, limit - (used or 0))
    return max(0, min(DEFAULT_CAP, free // 4))


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max", or no such controller
        return None


def default_threads(*, remote: bool = False) -> int:
    """The processors that this process may use; twice as many to hide a network's waiting."""
    return threads_on(len(os.sched_getaffinity(0)), remote=remote)


def threads_on(cpus: int, *, remote: bool) -> int:
    """The same for a number of processors."""
    return cpus * (REMOTE_FACTOR if remote else 1)


def budget_of(
    job: Job, output: ObjectStore, *, memory: int, threads: int, stores: Sequence[ObjectStore] = ()
) -> Budget:
    """Fit threads and steps into ``memory``, whatever K and the tensors' sizes.

    Args:
        output: where parts go.
        stores: of the sources; some hold memory of their own while they are read.

    Raises:
        BudgetTooSmall: not even one part and K + 1 steps of 64 KiB fit.
    """
    part = max(min(shard.part_size, shard.size) for shard in job.shards)
    sources, scans = len(job.sources), sum(store.scan_bytes for store in stores)
    # Sources of several dtypes are also held converted.
    copies = 2 if _converts(job) else 1

    def peak(threads: int, step: int) -> int:
        buffers = workspace_bytes(step, sources) + output.part_buffer_bytes(part, step) + scans
        return threads * (buffers + (copies - 1) * (sources + 1) * step)

    least = part + scans + copies * workspace_bytes(MIN_STEP, sources)
    if memory < least:
        raise BudgetTooSmall(
            "the memory budget is below one part and its steps",
            expected=f"at least {format_size(least)}",
            found=format_size(memory),
            hint="Give more with --memory, or make part_size in the spec smaller",
        )
    while threads > 1 and peak(threads, MIN_STEP) > memory:
        threads -= 1
    step = min(MAX_STEP, max(MIN_STEP, CACHE_SHARE // sources // 4096 * 4096))
    while step > MIN_STEP and peak(threads, step) > memory:
        step = max(MIN_STEP, step // 2)
    return Budget(memory=memory, threads=threads, step_bytes=step, peak=peak(threads, step))


def _converts(job: Job) -> bool:
    """Whether any source, or the result, has another dtype than the one that values are compared in."""
    working = np.array([job.dtypes.index(tensor.working) for tensor in job.tensors], np.int8)
    result = any(tensor.dtype != tensor.working for tensor in job.tensors)
    return result or bool(((job.dtype_of != working) & (job.file_of >= 0)).any())
