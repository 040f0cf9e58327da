"""Schedules over HTTP, on a service whose scheduler and runner run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from plait.jobs import Job
from plait.schedules import Schedule, ScheduleList, ScheduleRequest, Tick, TickPage, TickState
from plait_service.api.settings import REMOTE
from tests.service.schedules.world import write_model
from tests.support.service_app import App, running_app
from tests.support.waiting import until

DONE = '{"status": "done", "fingerprint": "f0"}'
UNKNOWN = "s-" + "0" * 24


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with running_app(tmp_path, schemes=REMOTE | {"file"}) as found:
        yield found


@pytest.fixture
def client(app: App, tmp_path: Path) -> httpx.Client:
    place = str(tmp_path)
    return app.client(app.token("ci", "submit", read=[place], write=[place]))


def a_schedule(folder: Path, **more: Any) -> dict[str, Any]:
    """Not due for a long time."""
    spec = {
        "models": [{"glob": f"{folder}/runs/order-*"}],
        "method": {"name": "average"},
        "output": f"{folder}/merged/{{date}}",
    }
    return {"name": "nightly", "cron": "0 3 29 2 *", "spec": spec, "latest": f"{folder}/latest.json", **more}


def create(client: httpx.Client, folder: Path, **more: Any) -> Schedule:
    answer = client.post("/v1/schedules", json=a_schedule(folder, **more))
    assert answer.status_code == 201, answer.text
    made = Schedule.model_validate(answer.json())
    assert answer.headers["Location"] == f"/v1/schedules/{made.id}"
    return made


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_a_schedule_from_its_beginning_to_its_end(app: App, client: httpx.Client, tmp_path: Path) -> None:
    write_model(tmp_path / "runs/order-0")
    made = create(client, tmp_path)
    place = f"/v1/schedules/{made.id}"
    assert Schedule.model_validate(client.get(place).json()) == made
    assert ScheduleList.model_validate(client.get("/v1/schedules").json()).schedules == [made]

    answer = client.post(f"{place}/run")
    assert answer.status_code == 202
    tick = Tick.model_validate(answer.json())
    assert (tick.state, tick.manual) == (TickState.WAITING, True)

    def newest() -> Tick:
        return TickPage.model_validate(client.get(f"{place}/ticks").json()).ticks[0]

    number = until(lambda: newest().job)
    job = Job.model_validate(client.get(f"/v1/jobs/{number}").json())
    assert (job.schedule, job.owner) == (made.id, "ci")
    assert [each["id"] for each in client.get("/v1/jobs", params={"schedule": made.id}).json()["jobs"]] == [
        number
    ]
    error_of(client.post(f"{place}/run"), 409)
    until(lambda: f"{number}-a1" in app.backend.requests)
    app.backend.end(f"{number}-a1", 0, DONE)
    until(lambda: newest().latest)
    assert newest().state is TickState.SUCCEEDED
    assert '"fingerprint": "f0"' in (tmp_path / "latest.json").read_text()

    paused = Schedule.model_validate(client.post(f"{place}/pause").json())
    assert (paused.paused, paused.next_due) == (True, None)
    resumed = Schedule.model_validate(client.post(f"{place}/resume").json())
    assert (resumed.paused, resumed.next_due) == (False, made.next_due)
    body = resumed.settings.model_dump(mode="json") | {"cron": "0 4 * * *"}
    changed = Schedule.model_validate(client.put(place, json=body).json())
    assert changed.settings == ScheduleRequest.model_validate(body)
    assert client.delete(place).json()["id"] == made.id
    error_of(client.get(place), 404)

    admin = app.client(app.token("root", "admin"))
    actions = [entry["action"] for entry in admin.get("/v1/audit").json()["entries"] if entry["who"] == "ci"]
    done = ["create", "run", "pause", "resume", "replace", "delete"]
    assert [action for action in actions if action.startswith("schedule.")] == [
        f"schedule.{d}" for d in done[::-1]
    ]


def test_all_problems_at_once(client: httpx.Client, tmp_path: Path) -> None:
    spec = {"models": ["{dat}"], "method": {"name": "average"}, "output": f"{tmp_path}/x"}
    answer = client.post("/v1/schedules", json=a_schedule(tmp_path, cron="x", spec=spec))
    found = error_of(answer, 422)
    assert [problem.get("where") for problem in found["problems"]] == ["cron", "spec.models.0"]


def test_a_spec_of_very_many_levels(client: httpx.Client, tmp_path: Path) -> None:
    spec: dict[str, Any] = a_schedule(tmp_path)["spec"]
    for _ in range(400):
        spec = {"models": spec}
    error_of(client.post("/v1/schedules", json=a_schedule(tmp_path, spec=spec)), 422)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"missed": "sometimes"},
        {"ready": {"glob": "x", "count": 0}},
        {"ready": {"glob": "x", "count": 1, "deadline": "soon"}},
        {"ready": {"glob": "x", "count": 1, "marker": "a/b"}},
        {"cron": ""},
        {"extra": 1},
    ],
)
def test_a_body_that_is_none(client: httpx.Client, tmp_path: Path, change: dict[str, Any]) -> None:
    error_of(client.post("/v1/schedules", json=a_schedule(tmp_path, **change)), 422)
    made = create(client, tmp_path)
    error_of(client.put(f"/v1/schedules/{made.id}", json=a_schedule(tmp_path, **change)), 422)


def test_places_and_names(client: httpx.Client, tmp_path: Path) -> None:
    found = error_of(client.post("/v1/schedules", json=a_schedule(tmp_path, latest="/etc/latest.json")), 403)
    assert found["found"].startswith("latest: ")
    create(client, tmp_path)
    error_of(client.post("/v1/schedules", json=a_schedule(tmp_path)), 409)


def test_another_teams_schedule(app: App, client: httpx.Client, tmp_path: Path) -> None:
    made = create(client, tmp_path)
    place = f"/v1/schedules/{made.id}"
    where = [str(tmp_path)]
    stranger = app.client(app.token("stranger", "submit", team="red", read=where, write=where))
    reader = app.client(app.token("reader", "read"))
    for method, path in (
        ("GET", place),
        ("DELETE", place),
        ("GET", f"{place}/ticks"),
        ("POST", f"{place}/pause"),
        ("POST", f"{place}/resume"),
        ("POST", f"{place}/run"),
    ):
        theirs = error_of(stranger.request(method, path), 404)
        unknown = error_of(stranger.request(method, path.replace(made.id, UNKNOWN)), 404)
        assert str(theirs).replace(made.id, UNKNOWN) == str(unknown)
        answer = reader.request(method, path)
        assert answer.status_code == (200 if method == "GET" else 403)
    error_of(stranger.put(place, json=a_schedule(tmp_path)), 404)
    assert stranger.get("/v1/schedules").json() == {"schedules": []}
    assert client.get(place).json() == made.model_dump(mode="json")


def test_pages_of_ticks(client: httpx.Client, tmp_path: Path) -> None:
    made = create(client, tmp_path)
    place = f"/v1/schedules/{made.id}/ticks"
    assert client.get(place).json() == {"ticks": [], "next": None}
    for wrong in ({"cursor": "x"}, {"limit": "0"}, {"limit": "201"}):
        error_of(client.get(place, params=wrong), 422)
    error_of(client.get("/v1/schedules/x"), 404)


def test_it_is_described_with_examples_that_are_valid(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    body = described["paths"]["/v1/schedules"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["examples"]) == {"nightly", "when-ready"}
    for example in body["examples"].values():
        ScheduleRequest.model_validate(example["value"])
