"""Drivers as jobs of a Ray cluster, by way of its Jobs API.

Ray never starts a job a second time, forgets all of them with its head, and has neither filters nor pages: so
our own records are what counts, and a job that Ray does not know is one whose driver is lost.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from plait.errors import ServiceUnavailable, SpecInvalid
from plait_service.jobs.backends.base import MOST_AT_ONCE, DriverRequest, Life, Look

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_MOST_SPEC: Final = 100_000
"""Bytes of a spec that a command line holds."""
_STOP_WAIT: Final = 20
"""Seconds from Ray's SIGTERM to its SIGKILL: a driver writes its journal."""
_INTERRUPTED: Final = 130


class RayJobsBackend:
    """Submits ``plait merge`` to a cluster; its image, or its nodes, have Plait.

    Args:
        address: of the dashboard, ``http://HEAD:8265``. Its token comes from the environment.
        program: in place of ``plait``.
    """

    every = 2.0  # Ray gives logs whole, each time

    def __init__(self, address: str, program: Sequence[str] = ("plait",)) -> None:
        self._address = address
        self._program = program
        self._lock = threading.Lock()
        self._made: JobSubmissionClient | None = None

    def start(self, handle: str, request: DriverRequest) -> None:
        """As the protocol says.

        Raises:
            SpecInvalid: the spec is longer than a command line.
        """
        spec = request.spec_text()
        if len(spec) > _MOST_SPEC:
            raise SpecInvalid(
                "the spec is too long for a Ray job",
                expected=f"at most {_MOST_SPEC} bytes",
                found=f"{len(spec)}",
                hint="Name many models by a glob",
            )
        with self._asking() as client:
            if _info(client, handle) is None:
                client.submit_job(
                    entrypoint=shlex.join([*self._program, *request.arguments(spec)]),
                    submission_id=handle,
                    runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT)}},
                )

    def look(self, handle: str) -> Look:
        """As the protocol says."""
        with self._asking() as client:
            info = _info(client, handle)
            if info is None:
                return Look(life=Life.ABSENT)
            status = str(getattr(info.status, "value", info.status))
            if status in ("PENDING", "RUNNING"):
                return Look(life=Life.RUNNING)
            if status == "SUCCEEDED":
                return Look(life=Life.ENDED, status=0)
            if status == "STOPPED":
                return Look(life=Life.ENDED, status=_INTERRUPTED)
            return Look(life=Life.ENDED, status=info.driver_exit_code)

    def read(self, handle: str, offset: int) -> bytes:
        """As the protocol says. Ray gives a log whole, each time."""
        with self._asking() as client:
            text = "" if _info(client, handle) is None else str(client.get_job_logs(handle))
        return text.encode()[offset : offset + MOST_AT_ONCE]

    def stop(self, handle: str, *, hard: bool) -> None:
        """As the protocol says; Ray itself is hard after a while."""
        with self._asking() as client:
            if _info(client, handle) is not None:
                client.stop_job(handle)

    def forget(self, handle: str) -> None:
        """As the protocol says."""
        with self._asking() as client:
            info = _info(client, handle)
            if info is not None and str(getattr(info.status, "value", info.status)) not in (
                "PENDING",
                "RUNNING",
            ):
                client.delete_job(handle)

    @contextmanager
    def _asking(self) -> Iterator[JobSubmissionClient]:
        """A client; what it raises is ``ServiceUnavailable``, and the next one is made anew."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        from ray.job_submission import JobSubmissionClient

        try:
            with self._lock:
                if self._made is None:
                    self._made = JobSubmissionClient(self._address)
                client = self._made
            yield client
        except (RuntimeError, ConnectionError, OSError) as error:
            with self._lock:
                self._made = None
            raise ServiceUnavailable(
                "the Ray cluster's Jobs API",
                where=self._address,
                found=(str(error).strip().splitlines() or [type(error).__name__])[-1][:200],
            ) from error


def _info(client: JobSubmissionClient, handle: str) -> JobDetails | None:
    """What Ray knows of a job; None if nothing."""
    try:
        return client.get_job_info(handle)
    except RuntimeError as error:
        if "404" in str(error) or "does not exist" in str(error):
            return None
        raise
