"""Drivers as processes of this machine, which outlive the service that started them.

A driver has a folder, ``ATTEMPTS/HANDLE``::

    lock     held by the driver's processes for as long as one of them lives: inherited, never taken over
    spec     what to merge
    log      what it said, both streams
    pid      of the driver
    exit     its status, written when it is over

Whoever can have the lock knows that nobody is at work there; neither a pid that was given to another process
nor a start that was cut short misleads. After a kill of the whole machine there is no ``exit``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from plait.errors import ServiceUnavailable
from plait_service.jobs.backends.base import MOST_AT_ONCE, DriverRequest, Life, Look

# The shell notes pid and status of the driver. TERM that a whole session gets must not end it before that.
_NOTING: Final = """
trap : TERM INT HUP
"$@" &
echo $! > pid.new && mv pid.new pid
while :; do wait $!; status=$?; kill -0 $! 2> /dev/null || break; done
echo $status > exit.new && mv exit.new exit
"""


class LocalBackend:
    """Runs ``plait`` of this environment.

    Args:
        folder: of all attempts; made if it is not there, for this user alone.
        program: in place of ``plait``.
    """

    every = 0.2

    def __init__(self, folder: Path, program: Sequence[str] = (sys.executable, "-m", "plait")) -> None:
        self._folder = folder
        self._program = program
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def start(self, handle: str, request: DriverRequest) -> None:
        """As the protocol says."""
        place = self._folder / handle
        try:
            place.mkdir(exist_ok=True, mode=0o700)
            with _lock(place) as lock:
                if lock is None or (place / "log").exists():
                    return
                (place / "spec").write_text(request.spec_text())
                arguments = request.arguments(str(place / "spec"))
                with open(place / "log", "xb") as log:
                    subprocess.Popen(
                        ["/bin/sh", "-c", _NOTING, "sh", *self._program, *arguments],
                        cwd=place,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=(lock,),
                        start_new_session=True,
                    )
        except OSError as error:
            raise _unavailable(place, error) from error

    def look(self, handle: str) -> Look:
        """As the protocol says."""
        place = self._folder / handle
        if not (place / "log").exists():
            return Look(life=Life.ABSENT)
        with _lock(place) as lock:
            if lock is None:
                return Look(life=Life.RUNNING)
        try:
            return Look(life=Life.ENDED, status=int((place / "exit").read_text()))
        except (OSError, ValueError):
            return Look(life=Life.ENDED)

    def read(self, handle: str, offset: int) -> bytes:
        """As the protocol says."""
        try:
            with open(self._folder / handle / "log", "rb") as log:
                log.seek(offset)
                return log.read(MOST_AT_ONCE)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise _unavailable(self._folder / handle, error) from error

    def stop(self, handle: str, *, hard: bool) -> None:
        """As the protocol says."""
        place = self._folder / handle
        if self.look(handle).life is not Life.RUNNING:
            return
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            process = psutil.Process(int((place / "pid").read_text()))
            if str(place / "spec") in process.cmdline():
                process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)

    def forget(self, handle: str) -> None:
        """As the protocol says."""
        if self.look(handle).life is Life.ENDED:
            shutil.rmtree(self._folder / handle, ignore_errors=True)


@contextmanager
def _lock(place: Path) -> Iterator[int | None]:
    """The lock of a folder for the length of the block, as a file descriptor; None if somebody has it."""
    try:
        descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unavailable(place, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)  # a process that inherited it keeps the lock


def _unavailable(place: Path, error: OSError) -> ServiceUnavailable:
    return ServiceUnavailable("a driver's folder cannot be used", where=str(place), found=error.strerror)
