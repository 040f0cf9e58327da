"""Every route of the service, as the app itself lists them: who gets in, and what another team sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import update
from starlette.testclient import TestClient

from plait.jobs import NewToken, TokenRequest
from plait_service.api.app import make_app
from plait_service.api.settings import Settings
from plait_service.api.state import Services
from plait_service.jobs.records import now
from plait_service.jobs.tables import TokenRow

OPEN: Final = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""What everybody may ask."""
TEAMS: Final = ("{job_id}", "{schedule_id}")
"""What belongs to a team."""

MERGE: Final[dict[str, Any]] = {
    "models": ["s3://ours/a", "s3://ours/b"],
    "method": {"name": "average"},
    "output": "s3://ours/out",
}
JOB: Final[dict[str, Any]] = {"spec": MERGE, "labels": {"run": "nightly"}}
SCHEDULE: Final[dict[str, Any]] = {"name": "nightly", "cron": "30 2 * * *", "spec": MERGE}


@dataclass(frozen=True)
class World:
    """A service with a job, a schedule and a token of one team; its threads do not run."""

    app: FastAPI
    services: Services
    ids: dict[str, str]
    ours: NewToken

    def client(self, authorization: str | None = None) -> TestClient:
        headers = {} if authorization is None else {"Authorization": authorization}
        return TestClient(self.app, base_url="http://127.0.0.1:8421", headers=headers)

    def token(self, name: str, *roles: str, **more: Any) -> NewToken:
        return self.services.tokens.create(
            TokenRequest.model_validate({"name": name, "roles": roles, **more})
        )

    def as_token(self, token: NewToken) -> TestClient:
        return self.client(f"Bearer {token.secret}")

    def filled(self, path: str) -> str:
        for name, value in self.ids.items():
            path = path.replace(name, value)
        assert "{" not in path, path
        return path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    app = make_app(Settings(folder=tmp_path))
    services: Services = app.state.services
    services.database.upgrade()
    asked = TokenRequest(name="ours", roles=["submit"], read=["s3://ours"], write=["s3://ours"])
    ours = services.tokens.create(asked)
    made = World(app, services, {}, ours)
    client = made.as_token(ours)
    job, schedule = client.post("/v1/jobs", json=JOB), client.post("/v1/schedules", json=SCHEDULE)
    assert (job.status_code, schedule.status_code) == (202, 201), (job.text, schedule.text)
    made.ids.update(
        {"{job_id}": job.json()["id"], "{schedule_id}": schedule.json()["id"], "{token_id}": ours.id}
    )
    yield made
    services.database.close()


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path that the app answers, also what its description leaves out."""
    found = []
    for context in iter_route_contexts(app.routes):
        assert context.path is not None
        assert context.methods, f"{context.path}: what kind of route is this?"
        found += [(method, context.path) for method in sorted(context.methods)]
    return found


def body_of(method: str, path: str) -> dict[str, Any] | None:
    """A good one, so that nothing but the token is wrong."""
    if method not in ("POST", "PUT"):
        return None
    bodies = {"/v1/jobs": JOB, "/v1/plans": JOB, "/v1/tokens": {"name": "new"}, "/v1/schedules": SCHEDULE}
    return bodies.get(path, SCHEDULE if method == "PUT" else None)


def expire(world: World, token: NewToken) -> None:
    with world.services.database.begin() as session:
        passed = now() - timedelta(seconds=1)
        session.execute(update(TokenRow).where(TokenRow.id == token.id).values(expires=passed))


def test_all_routes_are_found(world: World) -> None:
    found = routes(world.app)
    described = {
        (method.upper(), path)
        for path, operations in world.app.openapi()["paths"].items()
        for method in operations
    }
    assert described <= set(found)
    assert len(found) == len(set(found)) >= 21
    assert {path for _, path in found if any(name in path for name in TEAMS)} >= {
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/cancel",
        "/v1/jobs/{job_id}/events",
        "/v1/jobs/{job_id}/logs",
        "/v1/jobs/{job_id}/retry",
        "/v1/schedules/{schedule_id}",
        "/v1/schedules/{schedule_id}/ticks",
    }


def test_nobody_without_a_good_token_gets_anywhere(world: World) -> None:
    expired, revoked = world.token("expired", "admin", days=1), world.token("revoked", "admin")
    expire(world, expired)
    world.services.tokens.revoke(revoked.id)
    good = world.token("boss", "admin")
    clients = {
        "without": world.client(),
        "bad": world.client("Bearer plait_" + "A" * 43),
        "malformed": world.client("Bearer x"),
        "another scheme": world.client("Basic cGxhaXQ6cGxhaXQ="),
        "cut": world.client(f"Bearer {good.secret[:-1]}"),
        "expired": world.as_token(expired),
        "revoked": world.as_token(revoked),
    }
    before = world.as_token(good).get("/v1/audit").json()
    for method, path in routes(world.app):
        if path in OPEN:
            assert clients["without"].request(method, path).status_code != 401
            continue
        for kind, client in clients.items():
            response = client.request(method, world.filled(path), json=body_of(method, path))
            assert response.status_code == 401, (kind, method, path, response.text)
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.json()["error"]["kind"] == "unauthenticated"
    assert world.as_token(good).get("/v1/audit").json() == before  # and did nothing


def test_another_team_finds_nothing_of_a_team(world: World) -> None:
    everywhere = ["s3://ours", "s3://theirs"]
    theirs = world.as_token(world.token("theirs", "submit", read=everywhere, write=everywhere))
    ours = world.as_token(world.ours)
    job, schedule = f"/v1/jobs/{world.ids['{job_id}']}", f"/v1/schedules/{world.ids['{schedule_id}']}"
    before = [ours.get(job).json(), ours.get(schedule).json()]
    asked = 0
    for method, path in routes(world.app):
        if any(name in path for name in TEAMS):
            response = theirs.request(method, world.filled(path), json=body_of(method, path))
            assert response.status_code == 404, (method, path, response.text)
            assert response.json()["error"]["kind"] == "not-found"
            missing = world.filled(path).replace(job, "/v1/jobs/j-" + "0" * 24)
            missing = missing.replace(schedule, "/v1/schedules/s-" + "0" * 24)
            other = theirs.request(method, missing, json=body_of(method, path))
            assert other.status_code == 404  # what is not there looks the same
            same = other.text.replace("j-" + "0" * 24, world.ids["{job_id}"])
            assert same.replace("s-" + "0" * 24, world.ids["{schedule_id}"]) == response.text
            asked += 1
    assert asked >= 12
    assert [ours.get(job).json(), ours.get(schedule).json()] == before


def test_another_team_lists_nothing_of_a_team(world: World) -> None:
    everywhere = ["s3://ours"]
    theirs = world.as_token(world.token("theirs", "submit", read=everywhere, write=everywhere))
    ours, boss = world.as_token(world.ours), world.as_token(world.token("boss", "admin"))
    paths = (
        "/v1/jobs",
        "/v1/jobs?label=run%3Dnightly",
        "/v1/jobs?output=s3://ours/out",
        "/v1/jobs?state=queued",
        f"/v1/jobs?schedule={world.ids['{schedule_id}']}",
        f"/v1/jobs?cursor=j-{'f' * 24}",
    )
    for path in paths:
        assert theirs.get(path).json() == {"jobs": [], "next": None}, path
    assert theirs.get("/v1/schedules").json()["schedules"] == []
    for seen in (ours, boss):
        assert [job["id"] for job in seen.get("/v1/jobs").json()["jobs"]] == [world.ids["{job_id}"]]
        assert len(seen.get("/v1/schedules").json()["schedules"]) == 1


def test_what_another_team_cannot_do_the_team_and_an_admin_can(world: World) -> None:
    """Else the tests above would hold of a service that knows no jobs at all."""
    for client in (world.as_token(world.ours), world.as_token(world.token("boss", "admin"))):
        for method, path in routes(world.app):
            waits = path.endswith(
                ("/logs", "/events")
            )  # of a job that has not begun: nothing there, or nothing yet
            if any(name in path for name in TEAMS) and not waits and method != "DELETE":
                response = client.request(method, world.filled(path), json=body_of(method, path))
                assert response.status_code not in (401, 404), (method, path, response.text)


def test_an_idempotency_key_is_a_teams_own(world: World) -> None:
    theirs = world.as_token(world.token("theirs", "submit", read=["s3://ours"], write=["s3://ours"]))
    key = {"Idempotency-Key": "the-same"}
    first = world.as_token(world.ours).post("/v1/jobs", json=JOB, headers=key)
    other = theirs.post("/v1/jobs", json=JOB, headers=key)
    assert (first.status_code, other.status_code) == (202, 202)
    assert first.json()["id"] != other.json()["id"]
    assert other.json()["team"] == "theirs"


def test_every_route_but_the_open_ones_needs_a_role(world: World) -> None:
    reading = world.as_token(world.token("reader", "read", team="ours"))
    for method, path in routes(world.app):
        if path in OPEN or method in ("GET", "HEAD"):
            continue
        response = reading.request(method, world.filled(path), json=body_of(method, path))
        assert response.status_code == 403, (method, path, response.text)
    for path in ("/v1/tokens", "/v1/audit"):
        assert world.as_token(world.ours).get(path).status_code == 403


def test_places_that_are_not_allowed_are_refused_and_told(world: World) -> None:
    client = world.as_token(world.ours)
    evil = {**MERGE, "models": ["s3://ours/a", "s3://ours-evil/b"]}
    for path, body in (
        ("/v1/jobs", {"spec": evil | {"output": "s3://theirs/x"}}),
        ("/v1/plans", {"spec": evil | {"output": "s3://theirs/x"}}),
        ("/v1/schedules", SCHEDULE | {"name": "x", "spec": evil | {"output": "s3://theirs/{date}"}}),
    ):
        response = client.post(path, json=body)
        assert response.status_code == 403, response.text
        message = response.json()["error"]["message"]
        assert "models[1]: 's3://ours-evil/b'" in message
        assert "output: 's3://theirs/" in message
    log = world.as_token(world.token("boss", "admin")).get("/v1/audit").json()["entries"]
    refused = [(entry["who"], entry["action"]) for entry in log if entry["outcome"] == "forbidden"]
    assert sorted(refused) == [("ours", "job.submit"), ("ours", "job.submit"), ("ours", "schedule.create")]


def test_what_is_done_is_in_the_audit_log(world: World) -> None:
    client = world.as_token(world.ours)
    job, schedule = f"/v1/jobs/{world.ids['{job_id}']}", f"/v1/schedules/{world.ids['{schedule_id}']}"
    for method, path in (
        ("POST", f"{job}/cancel"),
        ("POST", f"{job}/retry"),
        ("POST", f"{schedule}/pause"),
        ("POST", f"{schedule}/resume"),
        ("DELETE", schedule),
    ):
        assert client.request(method, path).status_code == 200, path
    log = world.as_token(world.token("boss", "admin")).get("/v1/audit").json()["entries"]
    told = [(entry["who"], entry["action"], entry["outcome"], entry["address"]) for entry in reversed(log)]
    assert told == [
        ("ours", action, "ok", "testclient")
        for action in (
            "job.submit",
            "schedule.create",
            "job.cancel",
            "job.retry",
            "schedule.pause",
            "schedule.resume",
            "schedule.delete",
        )
    ]
