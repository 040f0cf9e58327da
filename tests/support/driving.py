"""Drivers in processes of their own, which can be killed.

Processes come from a fork server that has everything imported: each costs milliseconds, not seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from plait.errors import PlaitError
from plait_service import driver as driver_module
from plait_service.driver import Driver, Outcome, Progress
from plait_service.journal import read_journals
from plait_service.prepare import Prepared
from tests.support.merging import budget_for, prepared_of

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["plait_service.driver", "plait_service.prepare"])


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a driver in another process does.

    Args:
        spec: of the merge.
        report: a file for the steps it took, one a line, and at last its outcome or error in JSON.
        kill_at: it kills itself as it takes this step, counted from 0.
        stop_at: it stops itself as it takes the step of this name for the first time.
        die_after_parts: it kills itself when this many parts are finished and on record; on one thread.
        pause: seconds slept after each step of work, so that there is time to kill it.
        flush_every: seconds between two flushes of its journal.
        environment: variables that it has beside those of the fork server.
    """

    spec: Mapping[str, Any]
    report: Path
    kill_at: int = -1
    stop_at: str = ""
    die_after_parts: int = -1
    pause: float = 0.0
    flush_every: float = driver_module.FLUSH_EVERY
    memory: int = 64 << 20
    threads: int = 2
    overwrite: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Gate:
    """Where drivers wait for each other when they have planned. Of files: a killed one blocks nobody."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    def wait(self) -> None:
        """Say that this process is ready, and wait until the gate is open."""
        (self._folder / f"ready-{os.getpid()}").touch()
        while not (self._folder / "open").exists():
            time.sleep(0.0002)

    def open_for(self, count: int, seconds: float = 60) -> None:
        """Open the gate as soon as so many are ready."""
        deadline = time.monotonic() + seconds
        while len(list(self._folder.glob("ready-*"))) < count:
            if time.monotonic() > deadline:
                raise AssertionError("not all drivers are ready")
            time.sleep(0.0005)
        (self._folder / "open").touch()


def start(orders: Orders, gate: Gate | None = None) -> BaseProcess:
    """Start a driver; with a gate it waits there when it has planned."""
    process = CONTEXT.Process(target=_drive, args=(orders, gate))
    process.start()
    return process


def finish(process: BaseProcess, seconds: float = 120) -> int:
    """Wait for a driver; its exit code, negative for a signal."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("a driver does not end")
    return process.exitcode


def wait_until_stopped(process: BaseProcess, seconds: float = 60) -> None:
    """Wait for a driver that stops itself."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        if time.monotonic() > deadline or not process.is_alive():
            raise AssertionError("a driver does not stop itself")
        time.sleep(0.005)


def drive(orders: Orders) -> int:
    """Run a driver in a process of its own, to its end."""
    return finish(start(orders))


def steps_of(orders: Orders) -> list[str]:
    """The steps that a driver took."""
    return [line for line in orders.report.read_text().splitlines() if not line.startswith("{")]


def outcome_of(orders: Orders) -> Outcome:
    """How a driver ended that was not killed."""
    return Outcome(**_last(orders)["outcome"])


def error_of(orders: Orders) -> tuple[str, str]:
    """Kind and message of the error that a driver ended with."""
    error = _last(orders)["error"]
    return error["kind"], error["message"]


def _last(orders: Orders) -> dict[str, Any]:
    last: dict[str, Any] = json.loads(orders.report.read_text().splitlines()[-1])
    return last


def _drive(orders: Orders, gate: Gate | None) -> None:
    driver_module.FLUSH_EVERY = orders.flush_every  # type: ignore[misc]
    os.environ.update(orders.environment)
    taken, seen = 0, set[str]()
    with open(orders.report, "w", buffering=1) as report:

        def on_step(name: str) -> None:
            nonlocal taken
            report.write(name + "\n")
            if taken == orders.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if name == orders.stop_at and name not in seen:
                os.kill(os.getpid(), signal.SIGSTOP)
            seen.add(name)
            taken += 1

        def on_progress(_progress: Progress) -> None:
            if orders.pause:
                time.sleep(orders.pause)

        prepared = prepared_of(orders.spec)
        budget = budget_for(prepared, orders.memory, orders.threads)
        if gate is not None:
            gate.wait()
        if orders.die_after_parts >= 0:
            on_progress = _killer(orders, prepared)
        merge = Driver(prepared, budget, overwrite=orders.overwrite, on_progress=on_progress, on_step=on_step)
        try:
            report.write(json.dumps({"outcome": asdict(merge.run())}) + "\n")
        except PlaitError as error:
            report.write(json.dumps({"error": error.to_json()}) + "\n")
            raise SystemExit(error.exit_status) from None


def _killer(orders: Orders, prepared: Prepared) -> Callable[[Progress], None]:
    """Kills this process in the part after those that it is to finish, once they are on record."""
    job = prepared.plan.job
    sizes = [stop - start for start, stop in (job.shards[u.shard].part_range(u.number) for u in job.units())]
    finished = sum(sizes[: orders.die_after_parts])

    def on_progress(progress: Progress) -> None:
        if progress.done_bytes > finished:
            while len([*read_journals(prepared.output)]) < orders.die_after_parts:
                time.sleep(0.002)
            os.kill(os.getpid(), signal.SIGKILL)

    return on_progress
