"""Progress of a job for whoever watches: a bar in a terminal or a notebook, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic import ValidationError

from plait.jobs import Job, JobEvent, Progress
from plait.sizes import format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

LINE_EVERY: Final = 5.0
"""Seconds between two lines of progress where there is no terminal."""
_REDRAW_EVERY: Final = 0.2


class View(Protocol):
    """What shows a job."""

    def tell(self, event: JobEvent) -> None:
        """Something happened."""

    def show(self, job: Job) -> None:
        """This is how it is now."""


class Nothing:
    """Shows nothing."""

    def tell(self, event: JobEvent) -> None:
        """Nothing."""

    def show(self, job: Job) -> None:
        """Nothing."""


class Lines:
    """A line on standard error for each state, and one every few seconds for progress.

    Args:
        events: a line for every other event, too.
    """

    def __init__(self, *, events: bool = False) -> None:
        self._events = events
        self._last_line = 0.0
        self._state = ""

    def tell(self, event: JobEvent) -> None:
        """A state, or how far it is."""
        if event.kind == "state":
            self._enter(str(event.data.get("state")))
        elif event.kind == "progress":
            self._line(_progress(event.data))
        elif self._events:
            self._write(event_line(event))

    def show(self, job: Job) -> None:
        """A state, or how far it is."""
        self._enter(job.state.value)
        if not job.state.is_final:
            self._line(job.progress)

    def _enter(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._write(state)

    def _line(self, progress: Progress | None) -> None:
        now = time.monotonic()
        if progress is not None and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._write(line_of(progress))

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Bars:
    """A bar, of rich.

    Args:
        title: before the state.
        events: a line above it for every other event.
    """

    def __init__(self, bar: Bar, title: str, *, events: bool = False) -> None:
        self._bar, self._title, self._events = bar, title, events
        self._task = bar.add_task(title, total=None)

    def tell(self, event: JobEvent) -> None:
        """A state, or how far it is."""
        if event.kind == "state":
            self._describe(str(event.data.get("state")))
        elif event.kind == "progress":
            self._advance(_progress(event.data))
        elif self._events:
            self._bar.console.print(event_line(event), markup=False, highlight=False)

    def show(self, job: Job) -> None:
        """A state, and how far it is."""
        self._describe(job.state.value)
        self._advance(job.progress)

    def _describe(self, state: str) -> None:
        self._bar.update(self._task, description=f"{self._title} {state}")

    def _advance(self, progress: Progress | None) -> None:
        if progress is not None:
            self._bar.update(self._task, completed=progress.bytes_done, total=progress.bytes_total)


class Cell:
    """The same in the output of a notebook's cell, which is replaced from time to time. Needs no widgets."""

    def __init__(self, bar: Bar, inner: View) -> None:
        import IPython.display  # type: ignore[import-not-found, unused-ignore]

        display: Any = IPython.display.display  # has types in some versions, in others none
        self._bar, self._inner = bar, inner
        self._drawn = time.monotonic()
        self._display: Any = display(bar, display_id=True)

    def tell(self, event: JobEvent) -> None:
        """A state, or how far it is."""
        self._inner.tell(event)
        self._redraw(at_once=event.kind == "state")

    def show(self, job: Job) -> None:
        """A state, and how far it is."""
        self._inner.show(job)
        self._redraw(at_once=job.state.is_final)

    def _redraw(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if self._display is not None and (at_once or now - self._drawn >= _REDRAW_EVERY):
            self._drawn = now
            self._display.update(self._bar)


@contextmanager
def shown(title: str, wanted: bool | None, *, lines: bool = False, events: bool = False) -> Iterator[View]:
    """What shows a job for the length of the block.

    Args:
        title: before its state.
        wanted: None for a bar where there is a terminal or a notebook, and nothing elsewhere.
        lines: what to show elsewhere, in place of nothing; always so if it is wanted.
        events: show those that are neither states nor progress, too.
    """
    if wanted is False:
        yield Nothing()
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_jupyter:
        bar = _bar(console)
        yield Cell(bar, Bars(bar, title))
    elif sys.stderr.isatty():
        with _bar(console) as bar:
            yield Bars(bar, title, events=events)
    else:
        yield Lines(events=events) if wanted or lines else Nothing()


def _bar(console: Console) -> Bar:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Bar(*columns, console=console, transient=not console.is_jupyter)


def line_of(progress: Progress) -> str:
    """One line: bytes, share, rate and time left."""
    text = f"{format_size(progress.bytes_done)} of {format_size(progress.bytes_total)} ({progress.share:.0%})"
    if progress.rate:
        text += f", {format_size(int(progress.rate))}/s"
    if progress.seconds_left is not None:
        text += f", {progress.seconds_left:.0f} s left"
    return text


def event_line(event: JobEvent) -> str:
    """One line: time, kind, and what is plain of the rest."""
    said = " ".join(
        f"{key}={value}" for key, value in event.data.items() if isinstance(value, str | int | float)
    )
    return f"{event.time.astimezone():%H:%M:%S} {event.kind} {said}".rstrip()


def _progress(data: dict[str, Any]) -> Progress | None:
    try:
        return Progress.model_validate(data)
    except ValidationError:  # of a later version
        return None
