"""Events of jobs for whoever watches: each job is read once, however many do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from plait.jobs import JobEvent, JobState
from plait_service.jobs.records import Jobs

LOOK_EVERY: Final = 1.0
"""Seconds between two looks of which nobody said that they are worth it."""


class _Feed:
    """The events of one job, from the first, while somebody watches."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.changed = asyncio.Event()
        self.watchers = 0
        self.grown = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None
        self.error: Exception | None = None


class Feeds:
    """All feeds of a service. Its coroutines belong to one event loop.

    Args:
        jobs: to read events from.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._feeds: dict[str, _Feed] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False

    @property
    def watchers(self) -> int:
        """Of all jobs."""
        return sum(feed.watchers for feed in self._feeds.values())

    def changed(self, job: str) -> None:
        """A job has new events; may be called from any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._poke, job)

    def _poke(self, job: str) -> None:
        if job in self._feeds:
            self._feeds[job].changed.set()

    async def watch(self, job: str, after: int) -> AsyncIterator[JobEvent]:
        """The events of a job from the one after ``after`` on, until one says that it is over."""
        self._loop = asyncio.get_running_loop()
        feed = self._feeds.setdefault(job, _Feed())
        feed.watchers += 1
        if feed.task is None:
            feed.task = asyncio.create_task(self._read(job, feed))
        position = 0
        try:
            while not self._ended:
                while position < len(feed.events):
                    event = feed.events[position]
                    position += 1
                    if event.id > after:
                        yield event
                    if position == len(feed.events) and is_final(event):
                        return
                async with feed.grown:
                    if feed.error is not None:
                        raise feed.error
                    if position == len(feed.events) and not self._ended:
                        await feed.grown.wait()
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                self._feeds.pop(job, None)
                feed.task.cancel()

    async def _read(self, job: str, feed: _Feed) -> None:
        while True:
            feed.changed.clear()
            last = feed.events[-1].id if feed.events else 0
            try:
                fresh = await asyncio.to_thread(self._jobs.events, job, last)
            except Exception as error:
                feed.error, fresh = error, []
            if fresh or feed.error:
                async with feed.grown:
                    feed.events += fresh
                    feed.grown.notify_all()
                if feed.error:
                    return
            if len(fresh) == 1000:
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(feed.changed.wait(), LOOK_EVERY)

    @property
    def is_ended(self) -> bool:
        """Whether watching was ended with :meth:`end`: what a watcher saw may then not be all."""
        return self._ended

    def end(self) -> None:
        """End all watching, for the service ends; may be called from any thread, and from a signal."""
        self._ended = True
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda: loop.create_task(self._release()))

    async def _release(self) -> None:
        for feed in list(self._feeds.values()):
            async with feed.grown:
                feed.grown.notify_all()


def is_final(event: JobEvent) -> bool:
    """Whether this event says that the job is over."""
    return event.kind == "state" and JobState(event.data["state"]).is_final
