"""A submitted job, as a program holds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

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
    from plait.client import Client

_FIRST_LOOK: Final = 0.1
_LAST_LOOK: Final = 2.0
"""Seconds between two looks at a job for which somebody waits until a certain moment."""


class JobHandle:
    """A job of a service.

    Args:
        client: to ask.
        job: as the service said it.
    """

    def __init__(self, client: Client, job: Job) -> None:
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

    def refresh(self) -> Job:
        """Ask how it is."""
        return self._told(calls.job(self.id))

    def cancel(self) -> Job:
        """Ask for its end; what is finished of it is kept. A second time is no error.

        Raises:
            WrongState: it has ended already, otherwise.
        """
        return self._told(calls.cancel(self.id))

    def retry(self) -> Job:
        """Queue it again; it carries on from what is finished.

        Raises:
            WrongState: it is not over, or succeeded.
        """
        return self._told(calls.retry(self.id))

    def _told(self, call: Call[Job]) -> Job:
        self._job = self._client.send(call)
        return self._job

    def wait(self, timeout: float | None = None, *, show: bool | None = None) -> Job:
        """The job once it is over, however it ended; see :meth:`result`.

        Args:
            timeout: seconds.
            show: progress; if absent, where there is a terminal or a notebook.

        Raises:
            TimeoutError: it is not over by then. It goes on, and may be waited for again.
        """
        with shown(self.id, show) as view:
            return self.wait_until(lambda job: job.state.is_final, timeout, view)

    def result(self, timeout: float | None = None, *, show: bool | None = None) -> Job:
        """The job once it succeeded.

        Raises:
            PlaitError: why it did not: what the merge itself would have raised; ``Cancelled``; or
                ``CommitUnknown``.
            TimeoutError: as :meth:`wait`.
        """
        job = self.wait(timeout, show=show)
        error = error_of_job(job)
        if error is not None:
            raise error
        return job

    def verdict(self, timeout: float | None = None) -> Job:
        """The job once its planning is over: it runs, or failed with all problems that were found.

        Raises:
            TimeoutError: as :meth:`wait`.
        """
        return self.wait_until(has_verdict, timeout)

    def wait_until(
        self,
        enough: Callable[[Job], bool],
        timeout: float | None = None,
        view: View | None = None,
    ) -> Job:
        """The job once something is so.

        Args:
            enough: looked at after each state of the job.
            timeout: seconds.
            view: what shows the job meanwhile.

        Raises:
            TimeoutError: it is not so by then.
        """
        if timeout is not None:
            return self._look_until(enough, time.monotonic() + timeout, view)
        with closing(self._events(0)) as events:
            for event in events:
                if event is not None and view is not None:
                    view.tell(event)
                # Where events do not come through, each broken connection is a look, too.
                if (event is None or event.kind == "state") and enough(self.refresh()):
                    break
        if view is not None:
            view.show(self._job)
        return self._job

    def _look_until(self, enough: Callable[[Job], bool], end: float, view: View | None) -> Job:
        pause = _FIRST_LOOK
        while not enough(self.refresh()):
            if view is not None:
                view.show(self._job)
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {self.id} is {self.state}; it goes on")
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LAST_LOOK)
        if view is not None:
            view.show(self._job)
        return self._job

    def watch(self, after: int = 0) -> Iterator[JobEvent]:
        """All events, those of the past first, each once and in order, until the job is over.

        Connections that break are made again.

        Args:
            after: the id of the last event that was seen.
        """
        with closing(self._events(after)) as events:
            for event in events:
                if event is not None:
                    yield event

    def _events(self, after: int) -> Generator[JobEvent | None]:
        """Events, and None for each connection that broke; at the end the job is up to date."""
        feed = EventFeed(self.id, after, self._client.patience)
        while True:
            call = feed.call()
            try:
                for chunk in self._stream(call, feed.opened, SILENCE):
                    yield from feed.feed(call, chunk)
                    if feed.ended:
                        break
                # A service that is shut down ends its answers, too.
                if feed.ended and self.refresh().state.is_final:
                    return
                feed.ended, trouble = False, feed.cut()
            except Again as again:
                trouble = again
            yield None
            time.sleep(feed.broken(trouble))

    def logs(
        self, *, follow: bool = False, tail: int | None = None, attempt: int | None = None
    ) -> Iterator[str]:
        """What a driver wrote, line by line.

        Args:
            follow: wait for more; through all attempts until the job is over, unless one is chosen.
            tail: no more than the last so many lines of what is there.
            attempt: which driver; the last if absent.

        Raises:
            NotFound: no driver was started yet, and that is not to be waited for.
        """
        number = attempt
        while True:
            number = self._attempt(number, wait=follow)
            if number is None:
                return
            yield from self._log(
                LogFeed(self.id, number, follow=follow, tail=tail, patience=self._client.patience)
            )
            if not follow or attempt is not None:
                return
            number, tail = number + 1, None

    def _attempt(self, wanted: int | None, *, wait: bool) -> int | None:
        """The one to read; None if the job ended without it."""
        job = self.refresh()
        if not wait:
            return wanted or max(1, len(job.attempts))
        least = wanted or 1
        if len(job.attempts) < least and not job.state.is_final:
            self.wait_until(lambda job: job.state.is_final or len(job.attempts) >= least)
        there = len(self._job.attempts)
        return None if there < least else wanted or there

    def _log(self, feed: LogFeed) -> Iterator[str]:
        while not feed.ended:
            call = feed.call()
            try:
                for chunk in self._stream(call, feed.opened, LOG_SILENCE):
                    yield from feed.feed(chunk)
                # A service that is shut down may end its answers, too.
                if feed.is_live and not self._is_over(feed.attempt):
                    raise feed.cut()
            except Again as again:
                time.sleep(feed.broken(again))
            else:
                yield from feed.end()

    def _is_over(self, attempt: int) -> bool:
        """Whether a driver has ended."""
        job = self.refresh()
        return job.state.is_final or any(each.number == attempt and each.ended for each in job.attempts)

    def _stream(self, call: Call[Any], opened: Callable[[], None], silence: float) -> Iterator[bytes]:
        """The bytes of an answer as they come.

        Raises:
            Again: the connection is not made, or broke.
            PlaitError: the service refused.
        """
        trouble: Again | PlaitError
        try:
            with self._client.open(call, silence) as response:
                if response.is_success:
                    opened()
                    yield from response.iter_bytes()
                    return
                response.read()
                trouble = refusal(call, response)
        except httpx.HTTPError as error:
            trouble = failure(call, error)
        raise trouble
