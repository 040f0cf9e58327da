"""Loops that do one part of a merge and nothing else: what a merge is held against."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from awscrt.checksums import crc64nvme
from kernel import in_cache, merger_of, step_bytes

STEP = 256 << 10
PART = 16 << 20


def timed_in_threads(threads: int, work: Callable[[int], None]) -> float:
    """Seconds from the moment that all threads are ready until the last one is done.

    Raises:
        RuntimeError: a thread failed.
    """
    ready, failed = threading.Barrier(threads + 1), list[BaseException]()

    def body(index: int) -> None:
        ready.wait()
        try:
            work(index)
        except BaseException as error:
            failed.append(error)

    pool = [threading.Thread(target=body, args=(index,)) for index in range(threads)]
    for thread in pool:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in pool:
        thread.join()
    seconds = time.perf_counter() - started
    if failed:
        raise RuntimeError("a thread failed") from failed[0]
    return seconds


def floor(sources: Sequence[Path], output: Path, threads: int) -> tuple[float, float]:
    """Read all sources in steps into buffers that are reused, and write the last one's bytes.

    Threads take stretches of 16 MiB in turn, as a merge takes its parts.

    Returns:
        Seconds of that; and seconds that the disk then takes to have the output, which a merge waits
        for before it calls its result finished.
    """
    inputs = [os.open(path, os.O_RDONLY) for path in sources]
    out = os.open(output, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    size = os.fstat(inputs[-1]).st_size
    stretches: queue.SimpleQueue[int] = queue.SimpleQueue()
    for start in range(0, size, PART):
        stretches.put(start)

    def work(_index: int) -> None:
        buffers = [bytearray(STEP) for _ in inputs]
        while True:
            try:
                start = stretches.get_nowait()
            except queue.Empty:
                return
            for offset in range(start, min(start + PART, size), STEP):
                for descriptor, buffer in zip(inputs, buffers, strict=True):
                    count = os.preadv(descriptor, [buffer], offset)
                os.pwrite(out, memoryview(buffers[-1])[:count], offset)

    try:
        seconds = timed_in_threads(threads, work)
        started = time.perf_counter()
        os.fdatasync(out)
        return seconds, time.perf_counter() - started
    finally:
        for descriptor in (*inputs, out):
            os.close(descriptor)


def kernel_alone(models: int, elements: int, threads: int) -> Callable[[], float]:
    """`select` with n = 4 over so many elements in all, from each thread's own buffers in its cache.

    Returns:
        What does it once and returns the seconds. Buffers are filled, and the kernel loaded, before.
    """
    stretches = [in_cache(models) for _ in range(threads)]
    mergers = [merger_of(models, 4, [1.0] * models) for _ in range(threads)]

    def work(index: int) -> None:
        stretch, merger = stretches[index], mergers[index]
        counters = np.zeros(2 * models + 2, np.int64)
        share = elements // threads
        for first in range(index * share, (index + 1) * share, stretch.num_elements):
            merger.merge(stretch.inputs, stretch.base, stretch.out, first, counters)

    return lambda: timed_in_threads(threads, work)


def checksums_alone(models: int, size: int, threads: int) -> float:
    """SHA-256 and CRC-64 of so many bytes in all, in the steps of a merge. Seconds."""
    buffer = bytes(step_bytes(models + 1))

    def work(_index: int) -> None:
        sha, crc = hashlib.sha256(), 0
        for _ in range(size // threads // len(buffer)):
            sha.update(buffer)
            crc = crc64nvme(buffer, crc)

    return timed_in_threads(threads, work)
