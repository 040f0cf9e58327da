"""What the service answers is what its OpenAPI document says, whatever it is sent."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from plait_service.api.app import make_app
from plait_service.api.settings import Settings
from tests.support.checkpoints import Family, make_family
from tests.support.service import Service, events_of, final, held

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SPEC = {
    "models": ["s3://runs/2026-11-21/order-0", "s3://runs/2026-11-21/order-1"],
    "method": {"name": "average"},
    "output": "s3://models/merged/2026-11-21",
}
NOWHERE = {  # so that no test asks a store of the world
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_EC2_METADATA_DISABLED": "true",
}
EXAMPLES = 4


def _document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return make_app(Settings(folder=Path(folder))).openapi()


DOCUMENT = _document()
schema = schemathesis.openapi.from_dict(DOCUMENT)


@dataclass(frozen=True)
class World:
    """A service with a job of each sort, a schedule and a token: what routes with an id can find."""

    service: Service
    secret: str
    found: Mapping[str, list[str]]
    turns: Iterator[int] = field(default_factory=itertools.count)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def aim(self, parameters: dict[str, Any]) -> None:
        """Let every second case find what it asks for."""
        turn = next(self.turns)
        for name in parameters.keys() & self.found.keys():
            if turn % 2:
                parameters[name] = self.found[name][turn // 2 % len(self.found[name])]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("contract")
    family = make_family(root / "models", {"a.weight": ("BF16", (64, 64))})
    options = ("--allow", "file", "--slots", "1", "--requests-per-minute", "1000000")
    with Service(root / "service", *options, anonymous=False, env=NOWHERE) as service:
        places = [str(family.root), "s3://runs/", "s3://models/"]
        made = service.token("root", roles=["admin"], read=places, write=places)
        spare = service.token("spare")
        with service.client(made.secret) as client:
            yield World(service, made.secret, {**_furnish(service, client, family), "token_id": [spare.id]})


def _furnish(service: Service, client: httpx.Client, family: Family) -> dict[str, list[str]]:
    """Jobs: one that succeeded, one that failed, and some that wait for one whose driver stands still."""
    done = _submitted(client, family.spec())
    failed = _submitted(client, family.spec(base=str(family.root / "nowhere")))
    assert final(client, done).state == "succeeded"
    assert final(client, failed).state == "failed"
    _submitted(client, family.spec(output=str(family.root / "out-2")))
    held(service)
    waiting = [_submitted(client, SPEC) for _ in range(4)]
    schedule = {"name": "nightly", "spec": SPEC, "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    answer = client.post("/v1/schedules", json=schedule)
    assert answer.status_code == 201, answer.text
    return {"job_id": [done, failed, *waiting], "schedule_id": [answer.json()["id"]]}


def _submitted(client: httpx.Client, spec: Any) -> str:
    answer = client.post("/v1/jobs", json={"spec": spec})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


# Of waiting jobs and followed logs these answer for as long as the jobs wait: see below.
STREAMS = r"/(events|logs)$"


@schema.exclude(path_regex=STREAMS).parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_answers_are_those_of_the_document(world: World, case: schemathesis.Case) -> None:
    world.aim(case.path_parameters or {})
    case.call_and_validate(checks=CHECKS, base_url=world.service.url, headers=world.headers)


@schema.include(path_regex=STREAMS).parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_streams_begin_as_the_document_says(world: World, case: schemathesis.Case) -> None:
    """Of jobs that are over, or that nobody knows."""
    parameters = case.path_parameters or {}
    world.aim(parameters)
    if parameters.get("job_id") in world.found["job_id"]:
        parameters["job_id"] = world.found["job_id"][0]
    case.call_and_validate(checks=CHECKS, base_url=world.service.url, headers=world.headers)


def test_the_document_is_that_of_the_process(world: World) -> None:
    with world.service.client() as client:
        assert client.get("/openapi.json").json() == DOCUMENT


def test_every_route_wants_a_token_but_three(world: World) -> None:
    with world.service.client() as stranger:
        open_routes = set()
        for path, methods in DOCUMENT["paths"].items():
            for method, operation in methods.items():
                asked = path.replace("{", "").replace("}", "")
                answer = stranger.request(method, asked, json={})
                if answer.status_code != 401:
                    open_routes.add((method, path))
                assert ("security" in operation) == (answer.status_code == 401), (method, path)
    assert open_routes == {("get", "/healthz"), ("get", "/readyz")}


def test_a_whole_stream_of_a_job_that_is_over(world: World) -> None:
    number = world.found["job_id"][0]
    with world.service.client(world.secret) as client:
        events = client.get(f"/v1/jobs/{number}/events")
        assert events.headers["content-type"].startswith("text/event-stream")
        told = events_of(events.text)
        assert told[-1]["event"] == "end"
        assert [json.loads(each["data"])["id"] for each in told[:-1]] == list(range(1, len(told)))
        logs = client.get(f"/v1/jobs/{number}/logs?follow=true")
        assert logs.headers["content-type"].startswith("text/plain")
        assert '"status": "done"' in logs.text
