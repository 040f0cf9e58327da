"""Jobs over HTTP: answers, their forms, and streams."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from plait.jobs import Job, JobPage, JobState
from tests.support.service_app import SPEC, App, running_app
from tests.support.waiting import until

CLAIMED = '{"kind": "claimed", "epoch": 1}'
DONE = '{"status": "done", "fingerprint": "f0"}'


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with running_app(tmp_path) as found:
        yield found


def submit(client: httpx.Client, output: str = "s3://models/merged/x", **more: Any) -> Job:
    answer = client.post("/v1/jobs", json={"spec": {**SPEC, "output": output}, **more})
    assert answer.status_code == 202, answer.text
    return Job.model_validate(answer.json())


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert isinstance(error["message"], str)
    return error


class TestSubmit:
    def test_it_is_accepted_and_its_driver_started(self, app: App) -> None:
        client = app.as_member()
        answer = client.post("/v1/jobs", json={"spec": SPEC, "labels": {"run": "nightly"}, "priority": 7})
        job = Job.model_validate(answer.json())
        assert answer.status_code == 202
        assert answer.headers["Location"] == f"/v1/jobs/{job.id}"
        assert (job.team, job.labels, job.priority) == ("blue", {"run": "nightly"}, 7)
        assert job.spec == SPEC
        request = until(lambda: app.backend.requests.get(f"{job.id}-a1"))
        assert request.spec == SPEC
        assert client.get(answer.headers["Location"]).json()["id"] == job.id

    def test_a_plan_alone(self, app: App) -> None:
        answer = app.as_member().post("/v1/plans", json={"spec": SPEC})
        assert answer.status_code == 202
        assert answer.json()["kind"] == "plan"

    def test_idempotency(self, app: App) -> None:
        client, key = app.as_member(), {"Idempotency-Key": "night-7"}
        first = client.post("/v1/jobs", json={"spec": SPEC}, headers=key)
        again = client.post("/v1/jobs", json={"spec": SPEC}, headers=key)
        assert (first.status_code, again.status_code) == (202, 200)
        assert first.json()["id"] == again.json()["id"]
        other = client.post("/v1/jobs", json={"spec": SPEC, "priority": 1}, headers=key)
        assert error_of(other, 409)["kind"] == "idempotency-conflict"
        assert error_of(client.post("/v1/jobs", json={"spec": SPEC}, headers={"Idempotency-Key": "a b"}), 422)

    def test_all_that_is_wrong_with_a_spec_at_once_and_nothing_is_kept(self, app: App) -> None:
        client = app.as_member()
        wrong = {**SPEC, "seeed": 1, "method": {"name": "averag"}, "shard_size": "5 parsecs"}
        error = error_of(client.post("/v1/jobs", json={"spec": wrong}), 422)
        assert error["kind"] == "spec-invalid"
        told = json.dumps(error["problems"])
        assert len(error["problems"]) == 3
        assert "average" in told
        assert "seed" in told
        assert client.get("/v1/jobs").json()["jobs"] == []

    def test_places_that_are_not_allowed(self, app: App) -> None:
        client = app.as_member()
        for change in ({"output": "s3://elsewhere/x"}, {"models": ["s3://runs/a", "s3://secret/b"]}):
            assert (
                error_of(client.post("/v1/jobs", json={"spec": {**SPEC, **change}}), 403)["kind"]
                == "forbidden"
            )

    @pytest.mark.parametrize(
        "body", ["", "{", "[]", '{"spec": 1}', '{"spec": {}, "more": 1}', '{"spec": {"a": NaN}}']
    )
    def test_bodies_that_are_none(self, app: App, body: str) -> None:
        headers = {"Content-Type": "application/json"}
        assert error_of(app.as_member().post("/v1/jobs", content=body, headers=headers), 422)


class TestList:
    def test_filters_and_pages(self, app: App) -> None:
        client = app.as_member("submit")
        made = [
            submit(client, f"s3://models/merged/{number}", labels={"n": str(number % 2)}).id
            for number in range(5)
        ]
        found, cursor = [], None
        while True:
            query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
            page = JobPage.model_validate(client.get("/v1/jobs", params=query).json())
            found += [job.id for job in page.jobs]
            cursor = page.next
            if cursor is None:
                break
        assert found == sorted(made, reverse=True)

        def chosen(**query: Any) -> list[str]:
            return [job["id"] for job in client.get("/v1/jobs", params=query).json()["jobs"]]

        assert chosen(label="n=1") == [made[3], made[1]]
        assert chosen(output="s3://models/merged/4/") == [made[4]]
        assert chosen(after="2999-01-01T00:00:00Z") == []
        assert sorted(chosen(before="2999-01-01T00:00:00")) == sorted(made)
        assert chosen(state=["succeeded", "failed"]) == []
        assert sorted(chosen(state=["queued", "planning"])) == sorted(made)
        assert app.as_member(team="red").get("/v1/jobs").json()["jobs"] == []
        assert len(app.as_member("admin", team="red").get("/v1/jobs").json()["jobs"]) == 5

    @pytest.mark.parametrize(
        "query", ["label=n", "label=%20=x", "output=nonsense%00", "state=sleeping", "cursor=x", "limit=0"]
    )
    def test_queries_that_are_none(self, app: App, query: str) -> None:
        assert error_of(app.as_member().get(f"/v1/jobs?{query}"), 422)


class TestCancelAndRetry:
    def test_both(self, app: App) -> None:
        client = app.as_member()
        job = submit(client)
        until(lambda: f"{job.id}-a1" in app.backend.requests)
        assert client.post(f"/v1/jobs/{job.id}/cancel").json()["cancel_requested"]
        until(lambda: app.backend.stopped)
        app.backend.end(f"{job.id}-a1", 130)
        until(lambda: client.get(f"/v1/jobs/{job.id}").json()["state"] == "cancelled")
        assert client.post(f"/v1/jobs/{job.id}/retry").json()["state"] == "queued"
        assert error_of(client.post(f"/v1/jobs/{job.id}/retry"), 409)["kind"] == "wrong-state"
        entries = app.as_member("admin").get("/v1/audit").json()["entries"]
        assert [entry["action"] for entry in entries] == ["job.retry", "job.cancel", "job.submit"]

    def test_who_only_reads_may_not(self, app: App) -> None:
        job = submit(app.as_member())
        reader = app.as_member("read")
        assert reader.get(f"/v1/jobs/{job.id}").status_code == 200
        for path in (f"/v1/jobs/{job.id}/cancel", f"/v1/jobs/{job.id}/retry"):
            assert error_of(reader.post(path), 403)["kind"] == "forbidden"
        assert error_of(reader.post("/v1/jobs", json={"spec": SPEC}), 403)


def told(client: httpx.Client, job: str, **headers: str) -> list[tuple[str, str]]:
    """(event, id) of a stream, to its end."""
    found, event, number = [], "", ""
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "id":
                number = value
            elif not line and event:
                found.append((event, number))
                event, number = "", ""
    return found


class TestEvents:
    def test_a_stream_goes_on_until_the_job_is_over_and_from_where_one_was(self, app: App) -> None:
        client = app.as_member()
        job = submit(client)
        handle = f"{job.id}-a1"
        until(lambda: handle in app.backend.requests)
        streams: list[list[tuple[str, str]]] = []
        threads = [
            threading.Thread(target=lambda: streams.append(told(app.as_member("read"), job.id)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        until(lambda: app.services.feeds.watchers == 4)
        app.backend.say(handle, CLAIMED)
        until(lambda: client.get(f"/v1/jobs/{job.id}").json()["state"] == "running")
        app.backend.end(handle, 0, DONE)
        for thread in threads:
            thread.join(30)
        kinds = ["state", "state", "state", "claimed", "state", "end"]
        expected = [(kind, str(number + 1) if kind != "end" else "") for number, kind in enumerate(kinds)]
        assert streams == [expected] * 4
        until(lambda: app.services.feeds.watchers == 0)
        assert told(client, job.id) == expected
        assert told(client, job.id, **{"Last-Event-ID": "3"}) == expected[3:]
        assert told(client, job.id, **{"Last-Event-ID": "5"}) == expected[5:]

    def test_of_another_team_there_is_nothing_to_see(self, app: App) -> None:
        job = submit(app.as_member())
        stranger = app.as_member(team="red")
        for path in ("", "/events", "/logs"):
            assert error_of(stranger.get(f"/v1/jobs/{job.id}{path}"), 404)["kind"] == "not-found"


class TestLogs:
    def test_whole_tail_and_followed(self, app: App) -> None:
        client = app.as_member()
        job = submit(client)
        handle, path = f"{job.id}-a1", f"/v1/jobs/{job.id}/logs"
        until(lambda: handle in app.backend.requests)
        app.backend.say(handle, "one", "two", "three")
        assert client.get(path).text == "one\ntwo\nthree\n"
        assert client.get(path, params={"tail": 2}).text == "two\nthree\n"
        with client.stream("GET", path, params={"follow": "true", "tail": 1}) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "three"
            app.backend.end(handle, 0, "four", DONE)
            assert list(lines) == ["four", DONE]
        assert error_of(client.get(path, params={"attempt": 2}), 404)

    def test_before_there_is_any(self, app: App, tmp_path: Path) -> None:
        with running_app(tmp_path / "other", slots=1) as busy:
            client = busy.as_member()
            submit(client, "s3://models/merged/1")
            until(lambda: busy.backend.requests)
            waiting = submit(client, "s3://models/merged/2")
            assert error_of(client.get(f"/v1/jobs/{waiting.id}/logs"), 404)["kind"] == "not-found"


class TestHealth:
    def test_health_readiness_and_metrics(self, app: App) -> None:
        client = app.as_member()
        job = submit(client)
        until(lambda: f"{job.id}-a1" in app.backend.requests)
        app.backend.end(f"{job.id}-a1", 0, DONE)
        until(lambda: client.get(f"/v1/jobs/{job.id}").json()["state"] == "succeeded")
        for path in ("/healthz", "/readyz"):
            assert app.client().get(path).json() == {"status": "ok"}
        families = {each.name: each for each in text_string_to_metric_families(client.get("/metrics").text)}
        ended = [sample for sample in families["plait_jobs_ended"].samples if sample.name.endswith("_total")]
        assert [(sample.labels["state"], sample.value) for sample in ended] == [("succeeded", 1.0)]
        states = {sample.labels["state"] for sample in families["plait_jobs"].samples}
        assert states == {state.value for state in JobState if not state.is_final}
        routes = {sample.labels["route"] for sample in families["plait_request_seconds"].samples}
        assert "/v1/jobs/{job_id}" in routes

    def test_not_ready_without_its_database(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        from plait.errors import StoreUnavailable

        def away() -> None:
            raise StoreUnavailable("the service's database")

        monkeypatch.setattr(app.services.database, "check", away)
        answer = app.client().get("/readyz")
        assert error_of(answer, 503)["kind"] == "store-unavailable"
        assert answer.headers["Retry-After"]
        assert app.client().get("/healthz").status_code == 200


def test_routes_and_methods_that_are_none(app: App) -> None:
    client = app.as_member()
    assert error_of(client.get("/v1/nothing"), 404)["kind"] == "not-found"
    assert error_of(client.delete("/v1/jobs"), 405)
    assert error_of(client.get("/v1/jobs/j-none"), 404)["kind"] == "not-found"


def test_the_document_has_examples_and_names_every_answer(app: App) -> None:
    document = app.client().get("/openapi.json").json()
    assert document["components"]["schemas"]["JobRequest"]["properties"]["spec"]["examples"]
    submit_answers = document["paths"]["/v1/jobs"]["post"]["responses"]
    assert set(submit_answers) >= {"200", "202", "401", "403", "409", "413", "422", "429", "503"}
