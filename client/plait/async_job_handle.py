"""A submitted job, as a coroutine holds it; see :class:`plait.job_handle.JobHandle` for what holds of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from plait import calls
from plait.errors import PlaitError
from plait.following import LOG_SILENCE, SILENCE, EventFeed, LogFeed
from plait.http import Call, failure, refusal
from plait.job_states import error_of_job, has_verdict
from plait.jobs import Job, JobEvent, JobState
from plait.progress_shown import View, shown
from plait.retries import Again

if TYPE_CHECKING:
    from plait.async_client import AsyncClient


class AsyncJobHandle:
    """A job of a service.

    Args:
        client: to ask.
        job: as the service said it.
    """

    def __init__(self, client: AsyncClient, job: Job) -> None:
        self._client, self._job = client, job

    @property
    def id(self) -> str:
        """Of the job."""
        return self._job.id

    @property
    def job(self) -> Job:
        """As it was when the service said it last; nothing is asked."""
        return self._job

    @property
    def state(self) -> JobState:
        """As it was when the service said it last."""
        return self._job.state

    def __repr__(self) -> str:
        share = "" if self._job.progress is None else f" {self._job.progress.share:.0%}"
        return f"<plait job {self.id}: {self.state}{share}, {self._job.output}>"

    async def refresh(self) -> Job:
        """Ask how it is."""
        return await self._told(calls.job(self.id))

    async def cancel(self) -> Job:
        """Ask for its end; what is finished of it is kept."""
        return await self._told(calls.cancel(self.id))

    async def retry(self) -> Job:
        """Queue it again; it carries on from what is finished."""
        return await self._told(calls.retry(self.id))

    async def _told(self, call: Call[Job]) -> Job:
        self._job = await self._client.send(call)
        return self._job

    async def wait(self, timeout: float | None = None, *, show: bool | None = None) -> Job:
        """The job once it is over, however it ended.

        Raises:
            TimeoutError: it is not over by then. It goes on, and may be waited for again.
        """
        with shown(self.id, show) as view:
            return await self.wait_until(lambda job: job.state.is_final, timeout, view)

    async def result(self, timeout: float | None = None, *, show: bool | None = None) -> Job:
        """The job once it succeeded.

        Raises:
            PlaitError: why it did not.
            TimeoutError: as :meth:`wait`.
        """
        job = await self.wait(timeout, show=show)
        error = error_of_job(job)
        if error is not None:
            raise error
        return job

    async def verdict(self, timeout: float | None = None) -> Job:
        """The job once its planning is over: it runs, or failed with all problems that were found."""
        return await self.wait_until(has_verdict, timeout)

    async def wait_until(
        self, enough: Callable[[Job], bool], timeout: float | None = None, view: View | None = None
    ) -> Job:
        """The job once something is so.

        Raises:
            TimeoutError: it is not so by then.
        """
        try:
            with anyio.fail_after(timeout):
                return await self._wait_until(enough, view)
        except TimeoutError:
            raise TimeoutError(f"job {self.id} is {self.state}; it goes on") from None

    async def _wait_until(self, enough: Callable[[Job], bool], view: View | None) -> Job:
        async with aclosing(self._events(0)) as events:
            async for event in events:
                if event is not None and view is not None:
                    view.tell(event)
                # Where events do not come through, each broken connection is a look, too.
                if (event is None or event.kind == "state") and enough(await self.refresh()):
                    break
        if view is not None:
            view.show(self._job)
        return self._job

    async def watch(self, after: int = 0) -> AsyncIterator[JobEvent]:
        """All events, those of the past first, each once and in order, until the job is over."""
        async with aclosing(self._events(after)) as events:
            async for event in events:
                if event is not None:
                    yield event

    async def _events(self, after: int) -> AsyncGenerator[JobEvent | None]:
        """Events, and None for each connection that broke; at the end the job is up to date."""
        feed = EventFeed(self.id, after, self._client.patience)
        while True:
            call = feed.call()
            try:
                async with aclosing(self._stream(call, feed.opened, SILENCE)) as chunks:
                    async for chunk in chunks:
                        for event in feed.feed(call, chunk):
                            yield event
                        if feed.ended:
                            break
                # A service that is shut down ends its answers, too.
                if feed.ended and (await self.refresh()).state.is_final:
                    return
                feed.ended, trouble = False, feed.cut()
            except Again as again:
                trouble = again
            yield None
            await anyio.sleep(feed.broken(trouble))

    async def logs(
        self, *, follow: bool = False, tail: int | None = None, attempt: int | None = None
    ) -> AsyncIterator[str]:
        """What a driver wrote, line by line; see :meth:`plait.job_handle.JobHandle.logs`."""
        number = attempt
        while True:
            number = await self._attempt(number, wait=follow)
            if number is None:
                return
            feed = LogFeed(self.id, number, follow=follow, tail=tail, patience=self._client.patience)
            async with aclosing(self._log(feed)) as lines:
                async for line in lines:
                    yield line
            if not follow or attempt is not None:
                return
            number, tail = number + 1, None

    async def _attempt(self, wanted: int | None, *, wait: bool) -> int | None:
        """The one to read; None if the job ended without it."""
        job = await self.refresh()
        if not wait:
            return wanted or max(1, len(job.attempts))
        least = wanted or 1
        if len(job.attempts) < least and not job.state.is_final:
            await self.wait_until(lambda job: job.state.is_final or len(job.attempts) >= least)
        there = len(self._job.attempts)
        return None if there < least else wanted or there

    async def _log(self, feed: LogFeed) -> AsyncGenerator[str]:
        while not feed.ended:
            call = feed.call()
            try:
                async with aclosing(self._stream(call, feed.opened, LOG_SILENCE)) as chunks:
                    async for chunk in chunks:
                        for line in feed.feed(chunk):
                            yield line
                # A service that is shut down may end its answers, too.
                if feed.is_live and not await self._is_over(feed.attempt):
                    raise feed.cut()
            except Again as again:
                await anyio.sleep(feed.broken(again))
            else:
                for line in feed.end():
                    yield line

    async def _is_over(self, attempt: int) -> bool:
        """Whether a driver has ended."""
        job = await self.refresh()
        return job.state.is_final or any(each.number == attempt and each.ended for each in job.attempts)

    async def _stream(
        self, call: Call[Any], opened: Callable[[], None], silence: float
    ) -> AsyncGenerator[bytes]:
        """The bytes of an answer as they come.

        Raises:
            Again: the connection is not made, or broke.
            PlaitError: the service refused.
        """
        trouble: Again | PlaitError
        try:
            async with self._client.open(call, silence) as response:
                if response.is_success:
                    opened()
                    async for chunk in response.aiter_bytes():
                        yield chunk
                    return
                await response.aread()
                trouble = refusal(call, response)
        except httpx.HTTPError as error:
            trouble = failure(call, error)
        raise trouble
