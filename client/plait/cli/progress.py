"""Progress on standard error: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait_service.events import Events
    from plait_service.progress import Progress

LINE_EVERY = 5.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def progress_shown(
    total_bytes: int, events: Events | None = None, *, always_lines: bool = False
) -> Iterator[Callable[[Progress], None]]:
    """Show what the yielded function is told, for the length of the block.

    Args:
        total_bytes: of the result.
        events: of the merge; without a terminal they are shown, too: all as lines of JSON.
        always_lines: as if there were no terminal.
    """
    if always_lines or not sys.stderr.isatty():
        if events is not None:
            from plait_service.events import log_as_json

            log_as_json(sys.stderr)
        yield _Lines(events).tell
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("merging", total=total_bytes)

        def tell(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.resumed_bytes + progress.done_bytes,
                description=progress.shard or "merging",
            )

        yield tell


class _Lines:
    def __init__(self, events: Events | None) -> None:
        self._events = events
        self._started = self._last = time.monotonic()

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < LINE_EVERY:
            return
        self._last = now
        if self._events is not None:
            self._events.tell("progress", **progress_fields(progress, now - self._started))
            return
        sys.stderr.write(progress_line(progress, now - self._started) + "\n")
        sys.stderr.flush()


def progress_fields(progress: Progress, seconds: float) -> dict[str, Any]:
    """Bytes, the rate since this run began, and the time left at that rate, as an event has them."""
    there = progress.resumed_bytes + progress.done_bytes
    rate = progress.done_bytes / seconds if seconds > 0 else 0.0
    return {
        "bytes_done": there,
        "bytes_total": progress.total_bytes,
        "rate": round(rate),
        "seconds_left": round((progress.total_bytes - there) / rate, 1) if rate else None,
    }


def progress_line(progress: Progress, seconds: float) -> str:
    """One line: bytes, share, rate, time left and shard."""
    from plait.sizes import rounded_size

    there = progress.resumed_bytes + progress.done_bytes
    rate = progress.done_bytes / seconds if seconds > 0 else 0.0
    left = f"{(progress.total_bytes - there) / rate:.0f} s left" if rate else "time left unknown"
    share = there / progress.total_bytes if progress.total_bytes else 1.0
    return (
        f"{rounded_size(there)} of {rounded_size(progress.total_bytes)} ({share:.0%}), "
        f"{rounded_size(int(rate))}/s, {left}, {progress.shard}"
    )
