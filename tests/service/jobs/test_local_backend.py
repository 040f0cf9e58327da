"""Drivers as processes: real ones, that are killed, stopped, and found again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from plait.jobs import JobKind
from plait_service.jobs.backends.base import DriverRequest, Life, Look
from plait_service.jobs.backends.local import LocalBackend
from plait_service.jobs.driver_log import read_piece
from tests.support.checkpoints import make_family, read_model
from tests.support.waiting import until

REQUEST = DriverRequest(kind=JobKind.MERGE, spec={"output": "/out"}, overwrite=False)
# Says that it is there, and what it is told; ends at SIGTERM as a driver does.
PATIENT = (
    "/bin/sh",
    "-c",
    'trap "echo stopped; exit 130" TERM; echo begun "$@"; while :; do sleep 0.02; done',
    "x",
)
STUBBORN = ("/bin/sh", "-c", 'trap "" TERM; echo begun; while :; do sleep 0.02; done', "x")


def ended(backend: LocalBackend) -> Look:
    return until(lambda: found if (found := backend.look("a")).life is Life.ENDED else None)


def begun(folder: Path, program: tuple[str, ...]) -> LocalBackend:
    backend = LocalBackend(folder, program)
    backend.start("a", REQUEST)
    until(lambda: b"begun" in backend.read("a", 0) and (folder / "a" / "pid").exists())
    assert backend.look("a") == Look(life=Life.RUNNING)
    return backend


def processes(folder: Path) -> list[psutil.Process]:
    return [
        each
        for each in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(each.info["cmdline"] or ())
    ]


def test_a_real_merge_by_way_of_its_log(tmp_path: Path) -> None:
    family = make_family(tmp_path / "models", {"a": ("BF16", (64, 65))})
    backend = LocalBackend(tmp_path / "attempts")
    request = DriverRequest(kind=JobKind.MERGE, spec=family.spec(), overwrite=False)
    assert backend.look("a") == Look(life=Life.ABSENT)
    assert backend.read("a", 0) == b""
    backend.start("a", request)
    assert ended(backend) == Look(life=Life.ENDED, status=0)
    piece = read_piece(backend.read("a", 0), is_last=True)
    assert [event.kind for event in piece.events] == ["planned", "claimed", "publishing", "committed"]
    assert piece.said is not None
    assert piece.said["status"] == "done"
    assert read_model(family.out).keys() == {"a"}
    backend.start("a", request)  # nothing happens
    assert read_piece(backend.read("a", 0), is_last=True) == piece
    backend.forget("a")
    assert backend.look("a") == Look(life=Life.ABSENT)


def test_a_wrong_spec_has_its_status_and_its_reasons(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.start("a", REQUEST)
    assert ended(backend).status == 2
    said = read_piece(backend.read("a", 0), is_last=True).said
    assert said is not None
    assert {problem["kind"] for problem in said["error"]["problems"]} == {"spec-invalid"}


def test_it_outlives_who_started_it_and_is_never_started_twice(tmp_path: Path) -> None:
    backend = begun(tmp_path, PATIENT)
    other = LocalBackend(tmp_path, PATIENT)
    other.start("a", REQUEST)
    assert other.look("a").life is Life.RUNNING
    assert backend.read("a", 0).count(b"begun") == 1
    assert f"{tmp_path}/a/spec".encode() in backend.read("a", 0)
    assert json.loads((tmp_path / "a" / "spec").read_text()) == REQUEST.spec
    other.stop("a", hard=False)
    assert ended(backend).status == 130
    assert backend.read("a", 0).endswith(b"stopped\n")
    backend.stop("a", hard=True)  # it is over: nothing happens


def test_hard_ends_what_does_not_listen(tmp_path: Path) -> None:
    backend = begun(tmp_path, STUBBORN)
    backend.stop("a", hard=False)
    assert backend.look("a").life is Life.RUNNING
    backend.stop("a", hard=True)
    assert ended(backend).status == 128 + signal.SIGKILL


def test_killed_with_all_that_would_note_it(tmp_path: Path) -> None:
    backend = begun(tmp_path, PATIENT)
    for process in processes(tmp_path):
        process.kill()
    assert ended(backend) == Look(life=Life.ENDED, status=None)


def test_the_shell_alone_is_killed_and_the_driver_still_counts(tmp_path: Path) -> None:
    backend = begun(tmp_path, PATIENT)
    driver = int((tmp_path / "a" / "pid").read_text())
    for process in processes(tmp_path):
        if process.pid != driver:
            process.kill()
            process.wait()
    assert backend.look("a").life is Life.RUNNING
    backend.stop("a", hard=False)
    assert ended(backend).status is None
    assert backend.read("a", 0).endswith(b"stopped\n")


def test_a_start_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "spec").write_text("{")
    backend = LocalBackend(tmp_path, PATIENT)
    assert backend.look("a").life is Life.ABSENT
    begun(tmp_path, PATIENT).stop("a", hard=True)
    ended(backend)


def test_another_process_with_its_pid_is_left_alone(tmp_path: Path) -> None:
    backend = begun(tmp_path, PATIENT)
    pid = tmp_path / "a" / "pid"
    driver = pid.read_text()
    pid.write_text(str(os.getpid()))
    backend.stop("a", hard=True)  # would end this test
    pid.write_text(driver)
    backend.stop("a", hard=True)
    ended(backend)


def test_others_cannot_read_it(tmp_path: Path) -> None:
    backend = begun(tmp_path / "attempts", PATIENT)
    assert (tmp_path / "attempts").stat().st_mode & 0o077 == 0
    assert (tmp_path / "attempts" / "a").stat().st_mode & 0o077 == 0
    backend.stop("a", hard=True)
    ended(backend)


@pytest.mark.parametrize("handle", ["a", "j-019acf3b2c410a1b2c3d4e5f-a12"])
def test_one_that_nobody_knows(tmp_path: Path, handle: str) -> None:
    backend = LocalBackend(tmp_path)
    assert backend.look(handle) == Look(life=Life.ABSENT)
    backend.stop(handle, hard=True)
    backend.forget(handle)
