"""Logs of attempts: the end of one, and one as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastapi.responses import StreamingResponse
from starlette.types import Send

from plait.jobs import Attempt
from plait_service.jobs.backends.base import Backend
from plait_service.jobs.records import Jobs

_LOOK_EVERY: Final = 0.5


class Unfinished(Exception):
    """The service ends before a log that is followed does."""


class LogResponse(StreamingResponse):
    """A log. One that is ``Unfinished`` breaks off, so that nobody takes it for whole."""

    async def stream_response(self, send: Send) -> None:
        """As Starlette has it."""
        with suppress(Unfinished):
            await super().stream_response(send)


@dataclass(frozen=True)
class Tail:
    """Lines, and the offset at which they end."""

    text: bytes
    end: int


def tail_of(backend: Backend, handle: str, lines: int) -> Tail:
    """The last lines of a log. Reads all of it; keeps no more than is asked for."""
    kept, offset = b"", 0
    while data := backend.read(handle, offset):
        offset += len(data)
        kept = b"".join((kept + data).splitlines(keepends=True)[-lines:])
    return Tail(text=kept, end=offset)


async def follow(
    jobs: Jobs, backend: Backend, job: str, attempt: Attempt, offset: int, *, stay: bool
) -> AsyncIterator[bytes]:
    """A log from a byte on, in pieces; empty ones while there is nothing new.

    Args:
        stay: go on until the attempt is over.
    """
    while True:
        is_over = not stay or await asyncio.to_thread(_is_over, jobs, job, attempt.number)
        while data := await asyncio.to_thread(backend.read, attempt.handle, offset):
            offset += len(data)
            yield data
        if is_over:
            return
        yield b""
        await asyncio.sleep(_LOOK_EVERY)


def _is_over(jobs: Jobs, job: str, number: int) -> bool:
    found = jobs.get(job, None)
    return any(each.number == number and each.ended is not None for each in found.attempts)
