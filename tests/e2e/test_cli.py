"""The command as people and programs use it: output, exit statuses, interruption."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from plait.cli import cli
from plait.cli.run import run
from tests.support.checkpoints import Family, make_family, read_model, write_model
from tests.support.merging import digests, model_files
from tests.workers.checkpoint.malformed import CASES

PLAIT = Path(sys.executable).parent / "plait"
SHAPES = {
    "model.layers.0.up.weight": ("BF16", (200, 300)),
    "model.layers.1.up.weight": ("BF16", (200, 300)),
    "norm.weight": ("F32", (300,)),
}


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, SHAPES)


@pytest.fixture
def spec(family: Family) -> Path:
    path = family.root / "merge.yaml"
    method = {"name": "select", "resample": 4}
    path.write_text(json.dumps(family.spec(method, part_size="64KiB"), indent=1))
    return path


def plait(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(PLAIT), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def only_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Standard output is one JSON object and nothing else."""
    found: dict[str, Any] = json.loads(done.stdout)
    assert isinstance(found, dict)
    assert done.stdout.count("\n") == 1
    return found


class TestAGoodDay:
    def test_plan_merge_verify_inspect(self, family: Family, spec: Path) -> None:
        planned = plait("plan", spec)
        assert planned.returncode == 0, planned.stderr
        assert "select, resample 4, p = 1/3 each" in planned.stdout
        assert "no problems" in planned.stdout
        assert not family.out.exists()

        merged = plait("merge", spec)
        assert merged.returncode == 0, merged.stderr
        assert f"merged 3 sub-models into {family.out}" in merged.stdout
        assert read_model(family.out).keys() == SHAPES.keys()

        verified = plait("verify", family.out, "--sample", "1")
        assert verified.returncode == 0, verified.stderr
        assert re.search(r"^intact: 1 shard.* (\d+) of \1 parts recomputed", verified.stdout)

        again = plait("merge", spec)
        assert again.returncode == 0
        assert "already there" in again.stdout

        inspected = plait("inspect", family.root / "m0", "--base", family.root / "base")
        assert inspected.returncode == 0
        assert re.search(r"model\.layers\.\*\.up\.weight +2 +BF16 +120,000 .* \d+\.\d\d%", inspected.stdout)

    def test_json(self, family: Family, spec: Path) -> None:
        planned = only_json(plait("plan", spec, "--json"))
        merged = only_json(plait("merge", spec, "--json"))
        verified = only_json(plait("verify", family.out, "--json"))
        inspected = only_json(plait("inspect", family.root / "base", "--json"))
        assert planned["fingerprint"] == merged["fingerprint"] == verified["fingerprint"]
        assert (planned["status"], merged["status"], verified["status"]) == ("planned", "done", "done")
        assert merged["bytes_read"] == planned["bytes_read"]
        assert merged["parts_merged"] == planned["parts"]
        assert verified["checked_bytes"] == planned["bytes_written"]
        assert inspected["models"][0]["parameters"] == 120_300

    def test_events_as_lines_of_json(self, family: Family, spec: Path) -> None:
        done = plait("merge", spec, "--log-json", "--json")
        assert only_json(done)["status"] == "done"
        events = [json.loads(line) for line in done.stderr.splitlines()]
        assert [event["kind"] for event in events] == ["planned", "claimed", "publishing", "committed"]
        assert events[0]["sub_models"] == 3
        assert events[0]["parts"] == events[3]["merged"]
        assert {event["job"] for event in events} == {only_json(done)["fingerprint"][:12]}

    def test_the_spec_may_come_on_standard_input_and_be_overridden(self, family: Family, spec: Path) -> None:
        seeded = only_json(plait("plan", "-", "--json", "--set", "seed=7", stdin=spec.read_text()))
        assert seeded["fingerprint"] != only_json(plait("plan", spec, "--json"))["fingerprint"]
        unlimited = plait("plan", spec, "--set", "method.resample=unlimited")
        assert "resample unlimited" in unlimited.stdout

    def test_overwrite(self, family: Family, spec: Path) -> None:
        assert plait("merge", spec).returncode == 0
        before = digests(family.out)
        refused = plait("merge", spec, "--set", "seed=1")
        assert refused.returncode == 2
        assert refused.stderr.startswith("output-exists: ")
        assert digests(family.out) == before
        assert plait("plan", spec, "--set", "seed=1").returncode == 2
        assert plait("merge", spec, "--set", "seed=1", "--overwrite").returncode == 0
        assert digests(family.out)["model.safetensors"] != before["model.safetensors"]


class TestWhatIsTypedWrong:
    @pytest.mark.parametrize(
        ("arguments", "kind"),
        [
            (("merge", "nowhere.yaml"), "source-missing"),
            (("merge",), "spec-invalid"),
            (("mrege", "x"), "spec-invalid"),
            (("plan", "SPEC", "--memory", "much"), "spec-invalid"),
            (("plan", "SPEC", "--memory", "1KB"), "budget-too-small"),
            (("plan", "SPEC", "--set", "metod.resample=2"), "spec-invalid"),
            (("plan", "SPEC", "--set", "method.name=selct"), "spec-invalid"),
            (("plan", "SPEC", "--set", "base=/nowhere/at/all"), "source-missing"),
            (("verify", "/nowhere/at/all"), "output-corrupt"),
            (("inspect", "nosuch://bucket/x"), "spec-invalid"),
        ],
    )
    def test_an_error_is_a_few_lines_that_start_with_its_kind(
        self, spec: Path, arguments: tuple[str, ...], kind: str
    ) -> None:
        done = plait(*(str(spec) if argument == "SPEC" else argument for argument in arguments))
        assert done.returncode == (1 if kind == "output-corrupt" else 2)
        assert done.stderr.startswith(f"{kind}: ")
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") <= 3
        assert done.stdout == ""

    @pytest.mark.parametrize("group", [(), ("token",), ("schedule",)])
    def test_a_group_without_a_command_shows_its_help(self, group: tuple[str, ...]) -> None:
        done = plait(*group)
        assert done.returncode == 2
        assert done.stderr.startswith("Usage: plait")
        assert "Commands:" in done.stderr

    def test_with_json_the_error_is_json_too_and_debug_adds_a_traceback(self, spec: Path) -> None:
        done = plait("merge", spec, "--json", "--debug", "--set", "method.resample=-1")
        assert done.returncode == 2
        assert only_json(done)["error"]["kind"] == "spec-invalid"
        assert "Traceback" in done.stderr

    def test_the_nearest_method_is_named(self, spec: Path) -> None:
        done = plait("plan", spec, "--set", "method.name=selct")
        assert "select" in done.stderr.partition("Did you mean")[2]


class TestDamage:
    def test_a_flipped_byte_is_found_and_placed(self, family: Family, spec: Path) -> None:
        assert plait("merge", spec).returncode == 0
        file = family.out / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[70_000] ^= 1
        file.write_bytes(data)
        done = plait("verify", family.out, "--sample", "0")
        assert done.returncode == 1
        assert "bytes 65536 to 131072" in done.stderr
        assert done.stdout.startswith("NOT intact")

    def test_a_missing_shard_is_found(self, family: Family, spec: Path) -> None:
        assert plait("merge", spec, "--set", "shard_size=150KB").returncode == 0
        (family.out / "model-00001-of-00002.safetensors").unlink()
        done = plait("verify", family.out, "--sample", "0")
        assert done.returncode == 1
        assert "model-00001-of-00002.safetensors" in done.stderr

    def test_a_forged_result_with_a_forged_manifest_does_not_recompute(
        self, family: Family, spec: Path
    ) -> None:
        assert plait("merge", spec).returncode == 0
        other = family.root / "other"
        assert plait("merge", spec, "--set", f"output={other}", "--set", "seed=9").returncode == 0
        manifest = json.loads((family.out / "plait.json").read_text())
        manifest["shards"] = json.loads((other / "plait.json").read_text())["shards"]
        (family.out / "plait.json").write_text(json.dumps(manifest))
        (family.out / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
        assert plait("verify", family.out, "--sample", "0").returncode == 0
        done = plait("verify", family.out, "--sample", "1")
        assert done.returncode == 1
        assert done.stderr.startswith("output-corrupt: ")

    def test_sources_that_changed_cannot_be_recomputed_from(self, family: Family, spec: Path) -> None:
        assert plait("merge", spec).returncode == 0
        write_model(family.root / "m1", family.models[2])
        done = plait("verify", family.out, "--sample", "1")
        assert done.returncode == 1
        assert done.stderr.startswith("source-changed: ")


@pytest.mark.parametrize(("name", "build"), CASES, ids=[name for name, _ in CASES])
def test_a_malformed_source_ends_in_its_kind_and_name_and_leaves_nothing(
    family: Family, spec: Path, capsys: pytest.CaptureFixture[str], name: str, build: Any
) -> None:
    bad = family.root / "m1" / "model.safetensors"
    bad.write_bytes(build())
    assert run(cli, ["merge", str(spec)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("checkpoint-malformed: ")
    assert str(bad) in error
    assert not family.out.exists()


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 512, reason="few files may be open here")
def test_more_files_than_a_process_begins_with(tmp_path: Path) -> None:
    """A hundred shards, where 64 files may be open until more are asked for."""
    shapes = {f"layers.{index}.weight": ("F32", (200,)) for index in range(100)}
    family = make_family(tmp_path, shapes, models=2)
    spec = tmp_path / "merge.yaml"
    spec.write_text(json.dumps(family.spec(shard_size=1000)))
    for command in (("merge", spec), ("verify", family.out, "--sample", "1")):
        limited = ["sh", "-c", 'ulimit -Sn 64 && exec "$@"', "sh", PLAIT, *command]
        done = subprocess.run(limited, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(list(family.out.glob("*.safetensors"))) == 100


def test_interrupted_it_stops_keeps_its_parts_and_carries_on(tmp_path: Path) -> None:
    shapes = {f"layers.{index}.weight": ("BF16", (2000, 3000)) for index in range(6)}
    family = make_family(tmp_path, shapes, models=2)
    spec = tmp_path / "merge.yaml"
    spec.write_text(json.dumps(family.spec(part_size="64KiB")))
    process = subprocess.Popen(
        [PLAIT, "merge", str(spec), "--workers", "1"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(family.out.glob(".plait/journal-*")) and time.monotonic() < deadline:
        log = [path for path in family.out.glob(".plait/uploads/*/parts") if path.stat().st_size]
        if log:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.splitlines()[-1].startswith("cancelled: ")
    assert "Traceback" not in error
    assert not model_files(family.out)
    assert not list(family.out.glob(".plait/alive-*"))
    done = only_json(plait("merge", spec, "--json", "--memory", "8MB"))
    assert done["parts_resumed"] > 0
    assert plait("verify", family.out, "--sample", "1").returncode == 0
