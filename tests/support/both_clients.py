"""The synchronous and the asynchronous client, driven by the same tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

from plait import AsyncClient, Client


class Driven:
    """An asynchronous client, or a job of one, whose coroutines and iterators a test need not await."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._loop = inner, loop

    def __repr__(self) -> str:
        return repr(self._inner)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in ("tokens", "schedules"):
            return Driven(found, self._loop)
        if not callable(found):
            return found
        return lambda *arguments, **options: self._finish(found(*arguments, **options))

    def _finish(self, found: Any) -> Any:
        if inspect.isawaitable(found):
            return self._wrapped(self._loop.run_until_complete(found))
        return self._iterate(found) if hasattr(found, "__anext__") else found

    def _iterate(self, found: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._wrapped(self._loop.run_until_complete(anext(found)))
            except StopAsyncIteration:
                return

    def _wrapped(self, found: Any) -> Any:
        return Driven(found, self._loop) if type(found).__name__ == "AsyncJobHandle" else found


def driven(kind: str, *arguments: Any, loop: asyncio.AbstractEventLoop, **options: Any) -> Any:
    """A client of one kind or the other."""
    return (
        Client(*arguments, **options) if kind == "sync" else Driven(AsyncClient(*arguments, **options), loop)
    )
