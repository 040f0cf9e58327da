"""The client of the job service for coroutines; otherwise the same as :mod:`plait.client`.

::

    async with AsyncClient() as client:
        job = await client.submit(spec)
        async for event in job.watch():
            ...
        await job.result()
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying

from plait import calls
from plait.asking import SpecLike, States, as_model, filters, job_request, key_or_new
from plait.async_job_handle import AsyncJobHandle
from plait.calls import Me, Page
from plait.client import MOST_IN_PAGE, PATIENCE, TIMEOUT
from plait.http import Call, answer, failure, gave_up, options, streaming
from plait.jobs import AuditEntry, NewToken, Token, TokenRequest
from plait.profile import find_profile
from plait.retries import Again, rules
from plait.schedules import Schedule, ScheduleRequest, Tick

T = TypeVar("T")


class AsyncClient:
    """Speaks to a job service; see :class:`plait.Client` for what holds of it, and for its arguments.

    Its coroutines belong to one event loop.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
        profile: str | None = None,
    ) -> None:
        found = find_profile(url, token, profile)
        self.url = found.url
        self.patience = patience
        self._http = httpx.AsyncClient(**options(found, timeout))
        self.tokens = AsyncTokensOf(self)
        self.schedules = AsyncSchedulesOf(self)

    def __repr__(self) -> str:
        return f"<plait.AsyncClient of {self.url}>"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def submit(
        self,
        spec: SpecLike,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        overwrite: bool = False,
        attempts: int = 3,
        idempotency_key: str | None = None,
    ) -> AsyncJobHandle:
        """Submit a merge; see :meth:`plait.Client.submit`."""
        request = job_request(spec, labels, priority, overwrite, attempts)
        return AsyncJobHandle(self, await self.send(calls.submit(request, key_or_new(idempotency_key))))

    async def plan(
        self, spec: SpecLike, *, labels: Mapping[str, str] | None = None, idempotency_key: str | None = None
    ) -> AsyncJobHandle:
        """Submit a dry run; see :meth:`plait.Client.plan`."""
        request = job_request(spec, labels, 0, overwrite=False, attempts=1)
        call = calls.submit(request, key_or_new(idempotency_key), only_plan=True)
        return AsyncJobHandle(self, await self.send(call))

    async def job(self, id: str) -> AsyncJobHandle:
        """A job by its id; see :meth:`plait.Client.job`."""
        return AsyncJobHandle(self, await self.send(calls.job(id)))

    async def jobs(
        self,
        *,
        state: States | None = None,
        labels: Mapping[str, str] | None = None,
        output: str | os.PathLike[str] | None = None,
        schedule: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> AsyncIterator[AsyncJobHandle]:
        """Jobs, newest first; see :meth:`plait.Client.jobs`."""
        wanted = filters(state, labels, output, schedule, after, before, MOST_IN_PAGE)
        async for job in self.pages(lambda cursor: calls.jobs(wanted, cursor)):
            yield AsyncJobHandle(self, job)

    async def me(self) -> Me:
        """Whose the token is, and what it may do."""
        return await self.send(calls.me())

    def audit(self) -> AsyncIterator[AuditEntry]:
        """Who did what, newest first."""
        return self.pages(calls.audit)

    async def send(self, call: Call[T]) -> T:
        """Make a request of :mod:`plait.calls`, again and again if that may help.

        Raises:
            PlaitError: what the service says, or ``ServiceUnavailable`` if it says nothing.
        """
        retrying = AsyncRetrying(**rules(self.patience))
        try:
            found: T = await retrying(self._once, call)
        except Again as again:
            raise gave_up(
                again, retrying.statistics.get("delay_since_first_attempt", 0.0)
            ) from again.__cause__
        return found

    async def _once(self, call: Call[T]) -> T:
        try:
            response = await self._http.request(**call.request())
        except httpx.HTTPError as error:
            raise failure(call, error) from error
        return answer(call, response)

    @asynccontextmanager
    async def open(self, call: Call[Any], silence: float) -> AsyncIterator[httpx.Response]:
        """Make a request once, for an answer that is read as it comes.

        Args:
            silence: seconds without a byte after which the connection counts as lost.
        """
        timeout = streaming(self._http.timeout, silence)
        async with self._http.stream(**call.request(), timeout=timeout) as response:
            yield response

    async def pages(self, page_at: Callable[[str | None], Call[Page[T]]]) -> AsyncIterator[T]:
        """The things of all pages."""
        cursor: str | None = None
        while True:
            page = await self.send(page_at(cursor))
            for item in page.items:
                yield item
            cursor = page.next
            if cursor is None:
                return


class AsyncTokensOf:
    """Tokens of a service; see :class:`plait.client.TokensOf`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, request: TokenRequest | Mapping[str, Any]) -> NewToken:
        """A new token. Its ``secret`` is told this once."""
        return await self._client.send(calls.create_token(as_model(TokenRequest, request)))

    async def list(self) -> Sequence[Token]:
        """All tokens, without their secrets."""
        return await self._client.send(calls.tokens())

    async def revoke(self, id: str) -> Token:
        """End a token."""
        return await self._client.send(calls.revoke_token(id))


class AsyncSchedulesOf:
    """Schedules of a service; see :class:`plait.client.SchedulesOf`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, request: ScheduleRequest | Mapping[str, Any]) -> Schedule:
        """A new schedule."""
        return await self._client.send(calls.create_schedule(as_model(ScheduleRequest, request)))

    async def list(self) -> Sequence[Schedule]:
        """All schedules of the team, by name."""
        return await self._client.send(calls.schedules())

    async def get(self, id: str) -> Schedule:
        """A schedule as it is now."""
        return await self._client.send(calls.schedule(id))

    async def replace(self, id: str, request: ScheduleRequest | Mapping[str, Any]) -> Schedule:
        """Give a schedule other settings."""
        return await self._client.send(calls.replace_schedule(id, as_model(ScheduleRequest, request)))

    async def delete(self, id: str) -> None:
        """End a schedule; its jobs stay."""
        await self._client.send(calls.delete_schedule(id))

    async def pause(self, id: str) -> Schedule:
        """Submit nothing until it is resumed."""
        return await self._client.send(calls.pause_schedule(id, pause=True))

    async def resume(self, id: str) -> Schedule:
        """Go on."""
        return await self._client.send(calls.pause_schedule(id, pause=False))

    async def run(self, id: str) -> Tick:
        """A tick now."""
        return await self._client.send(calls.run_schedule(id))

    def ticks(self, id: str) -> AsyncIterator[Tick]:
        """What became of its ticks, newest first."""
        return self._client.pages(lambda cursor: calls.ticks(id, cursor))
