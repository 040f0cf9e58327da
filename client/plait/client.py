"""The client of the job service.

::

    from plait import Client, MergeSpec

    spec = MergeSpec(models=["s3://runs/a", "s3://runs/b"], method={"name": "average"}, output="s3://models/ab")
    with Client() as client:                     # PLAIT_URL and PLAIT_TOKEN, or a profile
        job = client.submit(spec, labels={"run": "nightly"})
        job.result()                             # waits; raises why the job failed, if it did

:class:`plait.AsyncClient` is the same for coroutines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

import httpx
from tenacity import Retrying

from plait import calls
from plait.asking import SpecLike, States, as_model, filters, job_request, key_or_new
from plait.calls import Me, Page
from plait.http import Call, answer, failure, gave_up, options, streaming
from plait.job_handle import JobHandle
from plait.jobs import AuditEntry, NewToken, Token, TokenRequest
from plait.profile import find_profile
from plait.retries import Again, rules
from plait.schedules import Schedule, ScheduleRequest, Tick

T = TypeVar("T")
TIMEOUT: Final = 30.0
PATIENCE: Final = 60.0
MOST_IN_PAGE: Final = 200


class Client:
    """Speaks to a job service. Threads may share one.

    What fails in a way that another try may help (no connection, 429, 502, 503, 504) is tried again, after
    waits that grow and are random, or as long as the service asks; but what was sent, and may not be done
    twice, is not. Every failure is one of :mod:`plait.errors`.

    Args:
        url, token: of the service; else ``PLAIT_URL`` and ``PLAIT_TOKEN``, or a profile
            (:mod:`plait.profile`).
        timeout: seconds without a byte after which a request counts as lost.
        patience: seconds after which a request is not tried again.
        profile: a table of the file of profiles.

    Raises:
        SpecInvalid: no such profile, no URL, or a token that would be sent in the clear.
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
        self._http = httpx.Client(**options(found, timeout))
        self.tokens = TokensOf(self)
        self.schedules = SchedulesOf(self)

    def __repr__(self) -> str:
        return f"<plait.Client of {self.url}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def submit(
        self,
        spec: SpecLike,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        overwrite: bool = False,
        attempts: int = 3,
        idempotency_key: str | None = None,
    ) -> JobHandle:
        """Submit a merge; returns as soon as it waits in the queue.

        Paths of this machine are made absolute: the service may have another working directory.

        Args:
            spec: a :class:`plait.MergeSpec`, the same as a mapping or YAML, or the path of a file of it.
            labels: to find it by.
            priority: from -100 to 100; the highest goes first.
            overwrite: replace what lies at the output.
            attempts: drivers that may be started, as long as what ends them is worth a retry.
            idempotency_key: the same key and job give the same job again, also from another process; made up
                if absent, so that this call is repeated safely.

        Raises:
            PlanRejected: with everything that is wrong with the spec.
            Forbidden: the token may not read or write there.
            IdempotencyConflict: the key was used for something else.
        """
        request = job_request(spec, labels, priority, overwrite, attempts)
        return JobHandle(self, self.send(calls.submit(request, key_or_new(idempotency_key))))

    def plan(
        self, spec: SpecLike, *, labels: Mapping[str, str] | None = None, idempotency_key: str | None = None
    ) -> JobHandle:
        """Submit a dry run: a job that only plans. ``result().plan`` says what a merge would do.

        Raises:
            As :meth:`submit`.
        """
        request = job_request(spec, labels, 0, overwrite=False, attempts=1)
        return JobHandle(self, self.send(calls.submit(request, key_or_new(idempotency_key), only_plan=True)))

    def job(self, id: str) -> JobHandle:
        """A job by its id.

        Raises:
            NotFound: there is none, or it is another team's.
        """
        return JobHandle(self, self.send(calls.job(id)))

    def jobs(
        self,
        *,
        state: States | None = None,
        labels: Mapping[str, str] | None = None,
        output: str | os.PathLike[str] | None = None,
        schedule: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> Iterator[JobHandle]:
        """Jobs, newest first; a page is asked for when it is come to.

        Args:
            state: one, or several of which any.
            labels: all of them.
            output: where its result goes.
            schedule: the id of the one that submitted it.
            after, before: when it was submitted; of a moment without a time zone this machine's counts.
        """
        wanted = filters(state, labels, output, schedule, after, before, MOST_IN_PAGE)
        return (JobHandle(self, job) for job in self.pages(lambda cursor: calls.jobs(wanted, cursor)))

    def me(self) -> Me:
        """Whose the token is, and what it may do."""
        return self.send(calls.me())

    def audit(self) -> Iterator[AuditEntry]:
        """Who did what, newest first."""
        return self.pages(calls.audit)

    def send(self, call: Call[T]) -> T:
        """Make a request of :mod:`plait.calls`, again and again if that may help.

        Raises:
            PlaitError: what the service says, or ``ServiceUnavailable`` if it says nothing.
        """
        retrying = Retrying(**rules(self.patience))
        try:
            found: T = retrying(self._once, call)
        except Again as again:
            raise gave_up(
                again, retrying.statistics.get("delay_since_first_attempt", 0.0)
            ) from again.__cause__
        return found

    def _once(self, call: Call[T]) -> T:
        try:
            response = self._http.request(**call.request())
        except httpx.HTTPError as error:
            raise failure(call, error) from error
        return answer(call, response)

    @contextmanager
    def open(self, call: Call[Any], silence: float) -> Iterator[httpx.Response]:
        """Make a request once, for an answer that is read as it comes.

        Args:
            silence: seconds without a byte after which the connection counts as lost.
        """
        with self._http.stream(**call.request(), timeout=streaming(self._http.timeout, silence)) as response:
            yield response

    def pages(self, page_at: Callable[[str | None], Call[Page[T]]]) -> Iterator[T]:
        """The things of all pages."""
        cursor: str | None = None
        while True:
            page = self.send(page_at(cursor))
            yield from page.items
            cursor = page.next
            if cursor is None:
                return


class TokensOf:
    """Tokens of a service; for administrators."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, request: TokenRequest | Mapping[str, Any]) -> NewToken:
        """A new token. Its ``secret`` is told this once."""
        return self._client.send(calls.create_token(as_model(TokenRequest, request)))

    def list(self) -> Sequence[Token]:
        """All tokens, without their secrets."""
        return self._client.send(calls.tokens())

    def revoke(self, id: str) -> Token:
        """End a token."""
        return self._client.send(calls.revoke_token(id))


class SchedulesOf:
    """Schedules of a service; see :mod:`plait.schedules`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, request: ScheduleRequest | Mapping[str, Any]) -> Schedule:
        """A new schedule."""
        return self._client.send(calls.create_schedule(as_model(ScheduleRequest, request)))

    def list(self) -> Sequence[Schedule]:
        """All schedules of the team, by name."""
        return self._client.send(calls.schedules())

    def get(self, id: str) -> Schedule:
        """A schedule as it is now."""
        return self._client.send(calls.schedule(id))

    def replace(self, id: str, request: ScheduleRequest | Mapping[str, Any]) -> Schedule:
        """Give a schedule other settings."""
        return self._client.send(calls.replace_schedule(id, as_model(ScheduleRequest, request)))

    def delete(self, id: str) -> None:
        """End a schedule; its jobs stay."""
        self._client.send(calls.delete_schedule(id))

    def pause(self, id: str) -> Schedule:
        """Submit nothing until it is resumed."""
        return self._client.send(calls.pause_schedule(id, pause=True))

    def resume(self, id: str) -> Schedule:
        """Go on."""
        return self._client.send(calls.pause_schedule(id, pause=False))

    def run(self, id: str) -> Tick:
        """A tick now."""
        return self._client.send(calls.run_schedule(id))

    def ticks(self, id: str) -> Iterator[Tick]:
        """What became of its ticks, newest first."""
        return self._client.pages(lambda cursor: calls.ticks(id, cursor))
