"""Events and logs of a job, followed over connections that break. No I/O."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from plait.calls import logs
from plait.errors import ServiceError, ServiceUnavailable
from plait.http import Call, gave_up, part, understood
from plait.jobs import JobEvent
from plait.retries import Again, note, wait_after
from plait.sse import EventDecoder, EventTooLarge

SILENCE: Final = 60.0
"""Seconds without a byte after which a connection counts as lost; the service says something every 15."""
LOG_SILENCE: Final = 300.0
"""The same for logs, where nothing says that the service is still there."""


class _Followed:
    """Counts failures in a row, and ends when nothing came for too long."""

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._last_word = clock()
        self._failures = 0

    def opened(self) -> None:
        """The service answers, or says something."""
        self._last_word = self._clock()

    def broken(self, again: Again) -> float:
        """Seconds to wait before the next connection.

        Raises:
            PlaitError: patience has ended; what the last connection failed of.
        """
        self._failures += 1
        wait, silent = wait_after(self._failures, again), self._clock() - self._last_word
        if silent + wait > self._patience:
            raise gave_up(again, silent) from None
        if self._failures > 1:  # a connection that ends after a while is nothing to speak of
            note(again)
        return wait


class EventFeed(_Followed):
    """The events of a job, each once and in order, until the service says that there are no more.

    Args:
        job: its id.
        after: the id of the last event that was seen.
        patience: seconds without a word of the service after which it fails.
        clock: for tests.
    """

    def __init__(
        self, job: str, after: int, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(patience, clock)
        self._path = f"jobs/{part(job)}/events"
        self.last = after
        self.ended = False
        self._decoder = EventDecoder()

    def call(self) -> Call[JobEvent]:
        """The next connection to make."""
        self._decoder = EventDecoder()
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last:
            headers["Last-Event-ID"] = str(self.last)
        return Call(method="GET", path=self._path, read=JobEvent.model_validate_json, headers=headers)

    def feed(self, call: Call[JobEvent], chunk: bytes) -> Iterator[JobEvent]:
        """The events that these bytes complete.

        Raises:
            ServiceError: they are none of the service's.
        """
        self.opened()
        try:
            for event in self._decoder.feed(chunk):
                if event.kind == "end":
                    self.ended = True
                    return
                found = understood(call, event.data.encode())
                if found.id > self.last:
                    self.last, self._failures = found.id, 0
                    yield found
        except EventTooLarge as error:
            raise ServiceError(str(error), where=f"/v1/{self._path}") from None

    def cut(self) -> Again:
        """The connection ended, and the events did not."""
        return Again(ServiceUnavailable("the events broke off", where=f"/v1/{self._path}"))


class LogFeed(_Followed):
    """The lines of one attempt's log, each once and in order, until it ends.

    Args:
        job: its id.
        attempt: which of its drivers.
        follow: wait for what the driver writes until it ends.
        tail: the last so many lines of what is there, and what follows.
        patience, clock: as those of ``EventFeed``.
    """

    def __init__(
        self,
        job: str,
        attempt: int,
        *,
        follow: bool,
        tail: int | None,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(patience, clock)
        self._job, self.attempt, self._follow, self._tail = job, attempt, follow, tail
        self._held: deque[str] | None = None if tail is None else deque(maxlen=tail)
        self._seen = self._skip = 0
        self._rest = b""
        self.ended = False

    @property
    def is_live(self) -> bool:
        """Whether the connection lasts for as long as the driver does, unless it ends too early."""
        return self._follow and self._held is None

    def cut(self) -> Again:
        """The connection ended, and the driver did not."""
        return Again(ServiceUnavailable("the log broke off", where=f"/v1/jobs/{self._job}/logs"))

    def call(self) -> Call[None]:
        """The next connection to make."""
        if self._held is not None:
            # Nothing was told yet: from the beginning, as the end may be elsewhere now.
            self._held.clear()
            self._seen, self._rest = 0, b""
        self._skip = self._seen
        # What is to be followed must be counted from its first byte.
        tail = self._tail if self._held is not None and not self._follow else None
        return logs(self._job, attempt=self.attempt, tail=tail, follow=self.is_live)

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that these bytes complete, without their ends."""
        self.opened()
        fresh = chunk[self._skip :]
        self._skip -= len(chunk) - len(fresh)
        self._seen += len(fresh)
        if fresh:
            self._failures = 0
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        if self._held is None:
            yield from map(_text, lines)
        else:
            self._held.extend(map(_text, lines))

    def end(self) -> Iterator[str]:
        """The answer is complete: what was held back of it."""
        held, self._held = self._held, None
        yield from held or ()
        if held is not None and self._follow:
            return
        self.ended = True
        if self._rest:
            yield _text(self._rest)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")
