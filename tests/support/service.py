"""`plait serve` as a process of a test's own: started, asked, stopped, killed, started again."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from plait.jobs import Job, NewToken, TokenRequest
from plait_service.jobs.database import Database
from plait_service.jobs.tokens import Tokens
from tests.support.waiting import until

PLAIT = Path(sys.executable).parent / "plait"
_SERVES = re.compile(r"^plait serves (https?)://(.*):(\d+)", re.MULTILINE)


class Service:
    """A service; whatever it and its drivers left running ends with the block.

    Args:
        folder: of its database and logs.
        options: of `plait serve`.
        anonymous: without tokens, and specs may name local folders; else make one with :meth:`token`.
        env: over this process's environment.
        verify: who the client trusts, where the service speaks TLS.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        anonymous: bool = True,
        env: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.folder = folder
        self.options = [*(["--anonymous", "--allow", "file"] if anonymous else []), *options]
        self.log_file = folder.with_name(f"{folder.name}.log")
        self.verify = verify
        self.port = 0
        self.url = ""
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("PLAIT_")}
        self._env.update(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        for driver in self.drivers():
            with suppress(psutil.NoSuchProcess):
                driver.kill()

    def start(self) -> None:
        """Start it, on the port that it had if it ran before, and wait until it is ready."""
        said_before = len(self.log())
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(self.command(), env=self._env, stdout=log, stderr=log)
        try:
            found = until(lambda: _SERVES.search(self.log()[said_before:]) or self._is_over())
            assert found is not True, f"it did not start:\n{self.log()}"
            self.port = int(found[3])
            self.url = f"{found[1]}://{found[2]}:{found[3]}"
            with self.client() as client:
                until(lambda: _is_ready(client) or self._is_over())
        except BaseException:
            self.kill()
            raise
        assert not self._is_over(), f"it ended:\n{self.log()}"

    def command(self) -> list[str]:
        """That starts it."""
        return [
            *(str(PLAIT), "serve", "--folder", str(self.folder), "--port", str(self.port)),
            *self.options,
        ]

    def _is_over(self) -> bool:
        return self.process.poll() is not None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """That runs, or ran last."""
        assert self._process is not None
        return self._process

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """Of its API; the caller closes it."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=self.verify, **options)

    def token(self, name: str, **wanted: Any) -> NewToken:
        """A new token, made beside the service as `plait token create --database` does."""
        database = Database(f"sqlite:///{self.folder / 'plait.db'}")
        try:
            return Tokens(database).create(TokenRequest(name=name, **wanted))
        finally:
            database.close()

    def terminate(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float = 30) -> int:
        """Ask it to end, and wait: its exit status."""
        self.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it at once; its drivers go on."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """What it wrote, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def drivers(self) -> list[psutil.Process]:
        """The processes of its drivers that live: each one's shell and Python."""
        attempts = str(self.folder / "attempts")
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if any(argument.startswith(attempts) for argument in process.cmdline()):
                    found.append(process)
        return found

    def attempt_logs(self) -> dict[str, str]:
        """What drivers wrote, by their handles."""
        return {
            path.parent.name: path.read_text(errors="replace")
            for path in sorted((self.folder / "attempts").glob("*/log"))
        }


def final(client: httpx.Client, number: str, seconds: float = 60) -> Job:
    """A job once it is over."""

    def over() -> Job | None:
        job = Job.model_validate_json(client.get(f"/v1/jobs/{number}").raise_for_status().content)
        return job if job.state.is_final else None

    job: Job = until(over, seconds)
    return job


def held(service: Service) -> psutil.Process:
    """The Python of the one driver that runs, stopped in the middle of what it does."""

    def found() -> psutil.Process | None:
        pythons = [each for each in service.drivers() if "-m" in each.cmdline()[:3]]
        return pythons[0] if pythons else None

    driver: psutil.Process = until(found)
    driver.send_signal(signal.SIGSTOP)
    return driver


def events_of(text: str) -> Sequence[Mapping[str, str]]:
    """The events of a whole stream: each one's fields."""
    fields = (
        dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        for block in re.split(r"\r?\n\r?\n", text)
    )
    return [each for each in fields if "event" in each]


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
