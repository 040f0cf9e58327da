"""The commands that ask a service, as people and scripts type them, against `plait serve`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import Family, make_family, read_model
from tests.support.service import Service
from tests.support.service_app import App, running_app
from tests.support.waiting import until

PLAIT = Path(sys.executable).parent / "plait"
SHAPES = {"model.layers.0.up.weight": ("BF16", (200, 300)), "norm.weight": ("F32", (300,))}
ID = r"j-[0-9a-f]{24}"
Done = subprocess.CompletedProcess[str]
Plait = Callable[..., Done]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service") / "plait") as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that wants tokens."""
    folder = tmp_path_factory.mktemp("guarded") / "plait"
    with Service(folder, "--allow", "file", anonymous=False) as found:
        yield found


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, SHAPES)


@pytest.fixture
def spec(family: Family) -> Path:
    path = family.root / "merge.yaml"
    path.write_text(json.dumps(family.spec({"name": "select", "resample": 4}, part_size="64KiB"), indent=1))
    return path


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Without what this machine's user has set."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PLAIT_")}
    return {**plain, "XDG_CONFIG_HOME": str(folder), **more}


def command(variables: dict[str, str]) -> Plait:
    """The command in an environment; more of it by keyword."""

    def run(*arguments: object, stdin: str = "", **more: str) -> Done:
        return subprocess.run(
            [str(PLAIT), *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            env=variables | more,
            check=False,
        )

    return run


@pytest.fixture
def plait(service: Service, tmp_path: Path) -> Plait:
    """The command, with PLAIT_URL."""
    return command(environment(tmp_path, PLAIT_URL=service.url))


def only_json(done: Done) -> dict[str, Any]:
    """Standard output is one JSON object and nothing else."""
    found: dict[str, Any] = json.loads(done.stdout)
    assert isinstance(found, dict)
    assert done.stdout.count("\n") == 1
    return found


def job_of(done: Done) -> str:
    return re.search(ID, done.stdout + done.stderr)[0]  # type: ignore[index]


class TestSubmit:
    def test_waits_for_the_plan_and_then_for_the_end(self, plait: Plait, spec: Path, family: Family) -> None:
        done = plait("submit", spec, "--wait", "--label", "run=nightly")
        assert done.returncode == 0, done.stderr
        assert re.search(
            rf"^{ID}: planned: 3 sub-models, 2 parts, reads .* writes .* to {family.out}$", done.stdout, re.M
        )
        assert re.search(rf"^{ID}: succeeded after \d+ s: {family.out}$", done.stdout, re.M)
        assert read_model(family.out).keys() == SHAPES.keys()

    def test_without_wait_ends_with_the_plan(self, plait: Plait, spec: Path) -> None:
        done = plait("submit", spec)
        assert done.returncode == 0, done.stderr
        assert re.search(rf"^{ID}: planned: ", done.stdout)
        assert plait("watch", job_of(done)).returncode == 0

    def test_json(self, plait: Plait, spec: Path) -> None:
        done = only_json(plait("submit", spec, "--wait", "--json", "--priority", "3"))
        assert (done["status"], done["job"]["state"], done["job"]["priority"]) == (
            "succeeded",
            "succeeded",
            3,
        )
        assert done["job"]["plan"]["parts"] == 2

    def test_all_problems_of_the_plan_are_printed(self, plait: Plait, spec: Path) -> None:
        wrong = ("submit", spec, "--set", "base=/nowhere/a", "--set", "models=[/nowhere/b, /nowhere/c]")
        done = plait(*wrong)
        assert done.returncode == 2
        problems = [line for line in done.stderr.splitlines() if line.startswith("source-missing: ")]
        assert [re.search("/nowhere/.", line)[0] for line in problems] == [  # type: ignore[index]
            "/nowhere/b",
            "/nowhere/c",
            "/nowhere/a",
        ]
        assert f"{job_of(done)}: failed" in done.stdout
        as_json = plait(*wrong, "--wait", "--json")
        assert as_json.returncode == 2
        found = only_json(as_json)
        assert (found["status"], found["job"]["state"]) == ("failed", "failed")
        assert len(found["error"]["problems"]) == 3

    def test_what_is_wrong_with_the_spec_costs_no_job(self, plait: Plait, spec: Path) -> None:
        before = len(only_json(plait("list", "--json", "--limit", "200"))["jobs"])
        here = plait("submit", spec, "--set", "sed=7")
        assert (here.returncode, here.stderr) == (
            2,
            "spec-invalid: --set sed: reading sed; expected a known key, found 'sed'. Did you mean 'seed'?\n",
        )
        there = plait("submit", spec, "--set", "method.resmple=7", "--json")
        assert there.returncode == 2
        assert "method.resmple" in only_json(there)["error"]["message"]
        assert len(only_json(plait("list", "--json", "--limit", "200"))["jobs"]) == before

    def test_only_a_plan(self, plait: Plait, spec: Path, family: Family) -> None:
        done = plait("submit", spec, "--plan-only")
        assert done.returncode == 0, done.stderr
        assert "planned: 3 sub-models" in done.stdout
        assert f"succeeded after 0 s; {family.out} can be merged" in re.sub(
            r"after \d+ s", "after 0 s", done.stdout
        )
        assert not family.out.exists()
        assert plait("submit", spec, "--plan-only", "--set", "base=/nowhere").returncode == 2
        assert "succeeded (plan)" in plait("list").stdout

    def test_the_same_key_is_the_same_job(self, plait: Plait, spec: Path) -> None:
        first = plait("submit", spec, "--key", f"key-{spec.parent.name}", "--detach")
        assert re.fullmatch(rf"{ID}\n", first.stdout)
        assert plait("submit", spec, "--key", f"key-{spec.parent.name}", "--detach").stdout == first.stdout
        other = plait("submit", spec, "--key", f"key-{spec.parent.name}", "--detach", "--set", "seed=1")
        assert other.returncode == 1
        assert other.stderr.startswith("idempotency-conflict: ")

    def test_what_lies_at_the_output(self, plait: Plait, spec: Path) -> None:
        assert plait("submit", spec, "--wait").returncode == 0
        refused = plait("submit", spec, "--set", "seed=1", "--wait")
        assert (refused.returncode, "output-exists: " in refused.stderr) == (2, True)
        assert plait("submit", spec, "--set", "seed=1", "--wait", "--overwrite").returncode == 0

    def test_a_spec_on_standard_input_with_paths_of_this_folder(
        self, plait: Plait, spec: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(spec.parent)
        text = spec.read_text().replace(f"{spec.parent}/", "")
        done = plait("submit", "-", "--plan-only", "--json", stdin=text)
        assert only_json(done)["status"] == "succeeded", done.stderr
        assert only_json(done)["job"]["output"] == f"{spec.parent}/out"

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--wait", "--detach"),
            ("--label", "x"),
            ("--priority", "101"),
            ("--plan-only", "--overwrite"),
            ("--token", "x"),
        ],
    )
    def test_what_is_typed_wrong(self, plait: Plait, spec: Path, arguments: tuple[str, ...]) -> None:
        done = plait("submit", spec, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("spec-invalid: ")


def test_waiting_outlives_the_service(spec: Path, tmp_path: Path) -> None:
    with Service(tmp_path / "restarted") as service:
        process = subprocess.Popen(
            [str(PLAIT), "submit", str(spec), "--wait", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path, PLAIT_URL=service.url),
        )
        with process:
            assert process.stderr is not None
            process.stderr.readline()
            for end in (service.kill, service.stop):
                end()
                service.start()
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert json.loads(said)["status"] == "succeeded"


class TestJobs:
    def test_list_and_show(self, plait: Plait, spec: Path, family: Family) -> None:
        label = f"test={family.root.name}"
        assert plait("list", "--label", label).stdout == "no jobs\n"
        first = job_of(plait("submit", spec, "--wait", "--label", label))
        second = job_of(plait("submit", spec, "--label", label, "--set", "base=/nowhere"))
        listed = plait("list", "--label", label)
        assert re.findall(ID, listed.stdout) == [second, first]
        assert re.findall(ID, plait("list", "--label", label, "--state", "failed").stdout) == [second]
        assert re.findall(ID, plait("list", "--output", family.out).stdout) == [second, first]
        cut = plait("list", "--label", label, "--limit", "1")
        assert (re.findall(ID, cut.stdout), cut.stderr) == ([second], "the first 1; --limit lists more\n")
        assert [job["id"] for job in only_json(plait("list", "--label", label, "--json"))["jobs"]] == [
            second,
            first,
        ]
        shown = plait("show", first).stdout
        assert re.search(r"^state +succeeded$", shown, re.M)
        assert re.search(r"^plan +3 sub-models, 2 parts", shown, re.M)
        assert re.search(r"^attempt 1 +succeeded after", shown, re.M)
        assert "source-missing: /nowhere" in plait("show", second).stdout
        assert only_json(plait("show", first, "--json"))["state"] == "succeeded"

    def test_watch(self, plait: Plait, spec: Path) -> None:
        number = job_of(plait("submit", spec, "--detach"))
        watched = plait("watch", number)
        assert watched.returncode == 0
        assert re.search(rf"^{number}: succeeded", watched.stdout)
        again = plait("watch", number, "--log-json", "--json")
        events = [json.loads(line) for line in again.stderr.splitlines()]
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        assert {"state", "planned", "committed"} <= {event["kind"] for event in events}
        assert only_json(again)["status"] == "succeeded"
        failed = job_of(plait("submit", spec, "--set", "base=/nowhere"))
        done = plait("watch", failed)
        assert done.returncode == 2
        assert "source-missing: /nowhere" in done.stderr

    def test_logs(self, plait: Plait, spec: Path) -> None:
        number = job_of(plait("submit", spec, "--detach"))
        followed = plait("logs", number, "--follow")
        assert followed.returncode == 0, followed.stderr
        assert "committed" in followed.stdout
        assert plait("logs", number).stdout == followed.stdout
        last = followed.stdout.splitlines()[-1:]
        assert plait("logs", number, "--tail", "1").stdout.splitlines() == last
        assert only_json(plait("logs", number, "--tail", "1", "--json"))["lines"] == last
        missing = plait("logs", number, "--attempt", "9")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert missing.stderr.startswith("not-found: ")

    def test_what_is_not_there(self, plait: Plait) -> None:
        number = "j-000000000000000000000000"
        for command in ("show", "watch", "logs", "cancel", "retry"):
            done = plait(command, number)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("not-found: ")
            assert done.stderr.count("\n") == 1

    def test_retry(self, plait: Plait, spec: Path, family: Family) -> None:
        base, away = family.root / "base", family.root / "away"
        base.rename(away)
        number = job_of(plait("submit", spec))
        away.rename(base)
        assert plait("retry", number, "--wait").returncode == 0
        again = plait("retry", number)
        assert again.returncode == 1
        assert again.stderr.startswith("wrong-state: ")


@pytest.fixture
def played(tmp_path: Path) -> Iterator[App]:
    """A service whose drivers do nothing until a test says so."""
    with running_app(tmp_path / "played", anonymous=True, schemes=frozenset({"file"})) as app:
        yield app


class TestAJobThatRuns:
    @pytest.fixture
    def plait(self, played: App, tmp_path: Path) -> Plait:
        return command(environment(tmp_path, PLAIT_URL=played.url))

    def test_cancel(self, played: App, plait: Plait, spec: Path) -> None:
        number, nowhere = job_of(plait("submit", spec, "--detach")), "j-000000000000000000000000"
        until(lambda: played.backend.drivers)
        done = plait("cancel", nowhere, number)
        assert (done.returncode, done.stdout) == (1, f"{number}: planning, asked to end\n")
        assert done.stderr == f"not-found: {nowhere}: no such job\n"
        assert re.search(r"^state +planning, asked to end$", plait("show", number).stdout, re.M)
        handle = until(lambda: played.backend.stopped)[0][0]
        played.backend.end(
            handle, 130, '{"status": "failed", "error": {"kind": "cancelled", "message": "x"}}'
        )
        watched = plait("watch", number, "--json")
        assert (watched.returncode, only_json(watched)["error"]["kind"]) == (130, "cancelled")
        again = only_json(plait("cancel", number, nowhere, "--json"))
        assert again["status"] == "failed"
        assert [job["state"] for job in again["jobs"]] == ["cancelled"]
        assert [error["kind"] for error in again["errors"]] == ["not-found"]

    @pytest.mark.parametrize("waiting", ["submit", "watch", "logs"])
    def test_ctrl_c_ends_the_waiting_and_not_the_job(
        self, played: App, plait: Plait, spec: Path, tmp_path: Path, waiting: str
    ) -> None:
        number = job_of(plait("submit", spec, "--detach", "--key", "k"))
        until(lambda: played.backend.drivers)
        arguments = {
            "submit": ["submit", str(spec), "--key", "k", "--wait"],
            "watch": ["watch", number],
            "logs": ["logs", number, "--follow"],
        }[waiting]
        process = subprocess.Popen(
            [str(PLAIT), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path, PLAIT_URL=played.url),
        )
        handle = next(iter(played.backend.drivers))
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            if waiting == "logs":
                played.backend.say(handle, "hello")
                assert process.stdout.readline() == "hello\n"
            else:
                assert process.stderr.readline().strip() in (f"{number}: planning", "queued")
                until(lambda: played.services.feeds.watchers)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert said.endswith("cancelled: interrupted\n")
        goes_on = f"{number} goes on: see `plait watch {number}`, `plait cancel {number}`"
        assert (goes_on in said) == (waiting != "logs")
        assert only_json(plait("show", number, "--json"))["state"] == "planning"

    def test_a_terminal_sees_a_bar_with_events_above_it(
        self, played: App, plait: Plait, spec: Path, tmp_path: Path
    ) -> None:
        number = job_of(plait("submit", spec, "--detach"))
        handle = next(iter(until(lambda: played.backend.drivers)))
        mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        variables = environment(tmp_path, PLAIT_URL=played.url, TERM="xterm")
        process = subprocess.Popen(
            [str(PLAIT), "watch", number], stderr=its, stdout=subprocess.PIPE, env=variables
        )
        os.close(its)
        seen = b""

        def sees(wanted: bytes) -> bool:
            nonlocal seen
            seen += os.read(mine, 1 << 16)
            return wanted in seen

        with process:
            until(lambda: sees(f"{number} planning".encode()))
            played.backend.say(
                handle,
                '{"kind": "planned", "parts": 8}',
                '{"kind": "node-lost", "node": "n1"}',
                '{"kind": "progress", "bytes_done": 5000000, "bytes_total": 10000000}',
            )
            until(lambda: sees(b"node-lost node=n1"))
            until(lambda: sees(b"5.0/10.0 MB"))
            played.backend.end(handle, 0, '{"status": "done"}')
            assert process.wait(60) == 0
            assert process.stdout is not None
            assert process.stdout.read().decode().startswith(f"{number}: succeeded")
        os.close(mine)

    def test_an_outcome_that_is_not_known(self, played: App, plait: Plait, spec: Path) -> None:
        number = job_of(plait("submit", spec, "--detach", "--attempts", "1"))
        handle = next(iter(until(lambda: played.backend.drivers)))
        said = {"status": "failed", "error": {"kind": "commit-unknown", "message": "who knows"}}
        played.backend.end(handle, 3, json.dumps(said))
        done = plait("watch", number)
        assert done.returncode == 3
        assert done.stderr.splitlines()[-1].startswith("commit-unknown: ")
        assert f"{number}: unknown" in done.stdout


class TestWithoutAService:
    def test_says_at_once_that_it_tries_again(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        arguments = [str(PLAIT), "list", "--url", url]
        with subprocess.Popen(
            arguments, stderr=subprocess.PIPE, text=True, env=environment(tmp_path)
        ) as waiting:
            assert waiting.stderr is not None
            said = waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(60) == 130
        assert said == (
            f"{url}/v1/jobs: the service is not reached; found [Errno 111] Connection refused; trying again\n"
        )

    def test_what_is_typed_wrong(self, plait: Plait) -> None:
        wrong = plait("list", "--url", "not a url")
        assert (wrong.returncode, wrong.stderr.startswith("spec-invalid: ")) == (2, True)
        done = plait("show", "x", "--profile", "nowhere")
        assert (done.returncode, done.stderr.startswith("spec-invalid: ")) == (2, True)


class TestTokens:
    def test_from_the_first_to_the_last(self, guarded: Service, spec: Path, tmp_path: Path) -> None:
        database = f"sqlite:///{guarded.folder}/plait.db"

        plait = command(environment(tmp_path, PLAIT_URL=guarded.url))
        refused = plait("list")
        assert (refused.returncode, refused.stderr.startswith("unauthenticated: ")) == (1, True)
        made = plait("token", "create", "ops", "--role", "admin", "--database", database)
        assert made.returncode == 0, made.stderr
        admin = made.stdout.strip()
        assert re.fullmatch(r"plait_\S+", admin)
        assert admin not in made.stderr

        places = ("--read", spec.parent, "--write", spec.parent / "out")
        team = plait(
            "token",
            "create",
            "nightly",
            "--role",
            "submit",
            *places,
            "--days",
            "1",
            "--json",
            PLAIT_TOKEN=admin,
        )
        token = only_json(team)
        assert (token["name"], token["team"], token["roles"]) == ("nightly", "nightly", ["submit"])

        file = tmp_path / "plait" / "config.toml"
        file.parent.mkdir()
        file.write_text(f'[nightly]\nurl = "{guarded.url}"\ntoken = "{token["secret"]}"\n')
        file.chmod(0o600)
        assert plait("submit", spec, "--wait", "--profile", "nightly").returncode == 0
        forbidden = plait("submit", spec, "--set", "output=/elsewhere", PLAIT_TOKEN=token["secret"])
        assert (forbidden.returncode, forbidden.stderr.startswith("forbidden: ")) == (1, True)
        assert plait("token", "list", PLAIT_TOKEN=token["secret"]).returncode == 1

        listed = plait("token", "list", PLAIT_TOKEN=admin).stdout
        assert re.findall(r"t-[0-9a-f]{24} +(\w+)", listed) == ["nightly", "ops"]
        assert token["secret"] not in listed
        assert plait("token", "revoke", token["id"], PLAIT_TOKEN=admin).returncode == 0
        assert plait("list", "--profile", "nightly").stderr.startswith("unauthenticated: ")
        tokens = only_json(plait("token", "list", "--json", PLAIT_DATABASE=database))["tokens"]
        assert [each["revoked"] is None for each in tokens] == [False, True]
        both = plait("token", "list", "--database", database, "--url", guarded.url)
        assert (both.returncode, "--database excludes" in both.stderr) == (2, True)


class TestSchedules:
    def test_from_the_first_to_the_last(self, plait: Plait, family: Family, tmp_path: Path) -> None:
        name = "nightly"
        file = tmp_path / "schedule.yaml"
        spec = family.spec({"name": "average"}, base=None, output=f"{family.root}/out-{{date}}")
        settings = {"name": name, "cron": "30 2 * * *", "timezone": "Europe/Berlin", "spec": spec}
        file.write_text(json.dumps(settings))
        made = plait("schedule", "create", file)
        assert made.returncode == 0, made.stderr
        number = re.match(r"s-[0-9a-f]{24}", made.stdout)[0]  # type: ignore[index]
        assert re.findall(r"s-[0-9a-f]{24} +(\w+)", plait("schedule", "list").stdout) == [name]
        assert only_json(plait("schedule", "show", name, "--json"))["id"] == number
        assert "cron: 30 2 * * *" in plait("schedule", "show", number).stdout
        assert "paused" in plait("schedule", "pause", name).stdout
        assert "next 2" in plait("schedule", "resume", name).stdout
        assert plait("schedule", "run", name).returncode == 0

        def done() -> list[dict[str, Any]]:
            ticks: list[dict[str, Any]] = only_json(plait("schedule", "ticks", name, "--json"))["ticks"]
            return [tick for tick in ticks if tick["state"] == "succeeded"]

        tick = until(done)[0]
        assert re.findall(ID, plait("list", "--schedule", number).stdout) == [tick["job"]]
        assert tick["job"] in plait("schedule", "ticks", name).stdout
        file.write_text(json.dumps(settings | {"cron": "0 3 * * *"}))
        assert "0 3 * * *" in plait("schedule", "replace", name, file).stdout
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(json.dumps(settings | {"crn": "0 3 * * *", "priority": 1000}))
        refused = plait("schedule", "create", wrong)
        assert refused.returncode == 2
        assert "Did you mean 'cron'?" in refused.stderr
        assert "reading priority" in refused.stderr
        assert plait("schedule", "delete", name).returncode == 0
        gone = plait("schedule", "show", name)
        assert (gone.returncode, gone.stderr) == (1, f"not-found: {name}: no such schedule\n")
