"""Both clients against a server that fails as a test says: what is asked, tried again, and raised."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.scripted_service import (
    JOB,
    NOW,
    TOKEN,
    Answer,
    ScriptedService,
    certificate,
    cut,
    error,
    good,
    job,
    pieces,
    reset,
    scripted,
    silence,
    status,
)

from plait import MergeSpec
from plait.cli.jobs import STATES
from plait.errors import (
    Forbidden,
    IdempotencyConflict,
    InternalError,
    NotFound,
    PlaitError,
    PlanRejected,
    ServiceError,
    ServiceUnavailable,
    SourceMissing,
    SpecInvalid,
    TooManyRequests,
    Unauthenticated,
)
from plait.jobs import JobState
from plait.schedules import ScheduleRequest, TickState

SPEC = {"models": ["s3://runs/a", "s3://runs/b"], "method": {"name": "average"}, "output": "s3://models/ab"}
TOKEN_SAID = {
    "id": "t-1",
    "name": "ci",
    "team": "ci",
    "roles": ["read"],
    "read": [],
    "write": [],
    "created": NOW,
}
SCHEDULE = {"name": "nightly", "cron": "30 2 * * *", "spec": SPEC}
SCHEDULE_SAID = {
    **SCHEDULE,
    "id": "s-019acf3b2c410a1b2c3d4e5f",
    "team": "ci",
    "owner": "ci",
    "paused": False,
    "created": NOW,
    "changed": NOW,
}
TICK = {"due": NOW, "state": "waiting", "changed": NOW}


TROUBLES: dict[str, Answer] = {
    "reset": reset,
    "cut": pieces(b'{"id": ', then=cut),
    "502 of a proxy": status(502, "<html>Bad Gateway</html>"),
    "503": error(503, "service-unavailable"),
    "503 of the database": error(503, "store-unavailable"),
    "504": status(504, ""),
    "429": error(429, "too-many-requests"),
}


class TestWhatIsTriedAgain:
    @pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
    def test_a_question(self, client: Any, service: ScriptedService, trouble: Answer) -> None:
        service.will(trouble, trouble, good(job("running")))
        assert client.job(JOB).state is JobState.RUNNING
        assert [seen.path for seen in service.seen] == [f"/v1/jobs/{JOB}"] * 3

    @pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
    def test_a_submission_with_the_same_key(
        self, client: Any, service: ScriptedService, trouble: Answer
    ) -> None:
        service.will(trouble, trouble, status(202, job()), status(202, job()))
        assert client.submit(SPEC).id == JOB
        client.submit(SPEC)
        keys = [seen.headers["Idempotency-Key"] for seen in service.seen]
        assert len(keys) == 4
        assert len(set(keys[:3])) == 1
        assert keys[3] != keys[0]
        assert len({seen.body for seen in service.seen}) == 1

    def test_not_what_may_have_been_done(self, client: Any, service: ScriptedService) -> None:
        for trouble in (reset, status(502, ""), error(503, "service-unavailable")):
            service.will(trouble)
            with pytest.raises(ServiceUnavailable):
                client.tokens.create({"name": "ci"})
        service.will(good(job("failed")), reset)
        handle = client.job(JOB)
        with pytest.raises(ServiceUnavailable, match="It may have been done"):
            handle.retry()
        assert len(service.seen) == 5

    def test_but_what_was_not_looked_at(self, client: Any, service: ScriptedService) -> None:
        service.will(error(429, "too-many-requests"), status(201, {**TOKEN_SAID, "secret": "plait_x"}))
        assert client.tokens.create({"name": "ci"}).secret == "plait_x"

    def test_not_what_the_service_refuses(self, client: Any, service: ScriptedService) -> None:
        service.will(error(500, "internal"))
        with pytest.raises(InternalError):
            client.me()
        assert len(service.seen) == 1

    def test_after_as_long_as_the_service_asks(self, client: Any, service: ScriptedService) -> None:
        service.will(status(429, "", Retry_After="1"), good(job()))
        began = time.monotonic()
        client.job(JOB)
        assert time.monotonic() - began >= 1

    def test_not_if_that_is_longer_than_patience(
        self, make: Callable[..., Any], service: ScriptedService
    ) -> None:
        client = make(service.url, patience=5)
        service.will(status(429, "", Retry_After="3600"))
        with pytest.raises(TooManyRequests, match="asks to wait 3600 s"):
            client.me()
        assert len(service.seen) == 1

    def test_no_longer_than_patience(self, make: Callable[..., Any]) -> None:
        with scripted() as gone:
            url = gone.url
        with pytest.raises(ServiceUnavailable, match="Tried for") as raised:
            make(url, patience=0.5).me()
        assert raised.value.where == f"{url}/v1/me"

    def test_a_service_that_says_nothing(self, make: Callable[..., Any], service: ScriptedService) -> None:
        client = make(service.url, timeout=0.2, patience=5)
        service.will(silence, good(job()))
        assert client.job(JOB).id == JOB
        service.will(silence)
        with pytest.raises(ServiceUnavailable, match="did not answer"):
            client.tokens.create({"name": "ci"})


class TestErrors:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (error(401, "unauthenticated"), Unauthenticated),
            (error(403, "forbidden"), Forbidden),
            (error(404, "not-found"), NotFound),
            (error(409, "idempotency-conflict"), IdempotencyConflict),
            (error(422, "spec-invalid"), SpecInvalid),
            (status(404, "<html>Not Found</html>"), NotFound),
            (status(401, ""), Unauthenticated),
            (status(500, "Internal Server Error"), ServiceError),
            (status(418, {"detail": "I'm a teapot"}), ServiceError),
            (good([]), ServiceError),
            (good("<html>Welcome</html>"), ServiceError),
            (good({"id": 7}), ServiceError),
        ],
    )
    def test_are_those_of_the_tree(
        self, client: Any, service: ScriptedService, answer: Answer, kind: type[PlaitError]
    ) -> None:
        service.will(answer)
        with pytest.raises(kind) as raised:
            client.job(JOB)
        assert type(raised.value) is kind

    def test_all_problems_of_a_spec_come_through(self, client: Any, service: ScriptedService) -> None:
        said = PlanRejected(
            [SpecInvalid("reading seed", where="spec:3", found="-1"), SourceMissing("no such model")]
        )
        service.will(status(422, {"error": said.to_json()}))
        with pytest.raises(PlanRejected) as raised:
            client.submit(SPEC)
        assert str(raised.value) == str(said)
        assert [type(problem) for problem in raised.value.problems] == [SpecInvalid, SourceMissing]

    def test_a_kind_of_a_later_version(self, client: Any, service: ScriptedService) -> None:
        service.will(error(409, "quota-spent", "the team's quota is spent"))
        with pytest.raises(ServiceError, match=r"^quota-spent: the team's quota is spent$"):
            client.me()

    def test_a_redirect_is_not_followed(self, client: Any, service: ScriptedService) -> None:
        with scripted() as other:
            service.will(status(307, "", Location=f"{other.url}/v1/me?token=secret"))
            with pytest.raises(ServiceError, match="redirects") as raised:
                client.me()
            assert other.seen == []
        assert other.url in str(raised.value)
        assert "secret" not in str(raised.value)

    def test_a_certificate_that_is_not_trusted(self, make: Callable[..., Any], tmp_path: Path) -> None:
        context, authority = certificate(tmp_path)
        with scripted(context) as service:
            service.will(good(job()), good(job()))
            with pytest.raises(ServiceError, match=r"not trusted.*ca_file") as raised:
                make(service.url).job(JOB)
            assert not raised.value.retryable
            assert service.seen == []
            file = tmp_path / "plait" / "config.toml"
            file.parent.mkdir()
            file.write_text(f'[private]\nurl = "{service.url}"\nca_file = "{authority}"\n')
            assert make(None, profile="private").job(JOB).id == JOB


class TestTheToken:
    def test_is_sent_and_not_shown(self, client: Any, service: ScriptedService) -> None:
        service.will(error(401, "unauthenticated", "the token is not valid"))
        with pytest.raises(Unauthenticated) as raised:
            client.me()
        assert service.seen[0].headers["Authorization"] == f"Bearer {TOKEN}"
        shown = repr(client) + repr(raised.value) + str(raised.value) + repr(vars(raised.value))
        assert TOKEN not in shown

    def test_does_not_go_to_a_proxy_from_this_machine_to_itself(
        self, make: Callable[..., Any], service: ScriptedService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with scripted() as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            service.will(good(job()))
            assert make(service.url, TOKEN).job(JOB).id == JOB
            assert proxy.seen == []

    def test_a_new_tokens_secret_is_in_no_repr(self, client: Any, service: ScriptedService) -> None:
        service.will(status(201, {**TOKEN_SAID, "secret": TOKEN}))
        assert TOKEN not in repr(client.tokens.create({"name": "ci"}))


class TestWhatIsAsked:
    def test_a_spec_may_be_an_object_data_yaml_or_a_file(
        self, client: Any, service: ScriptedService, tmp_path: Path
    ) -> None:
        spec = MergeSpec(**SPEC)
        file = tmp_path / "merge.yaml"
        file.write_text(spec.to_yaml())
        for each in (spec, SPEC, spec.to_yaml(), file):
            service.will(status(202, job()))
            client.submit(each, labels={"run": "nightly"}, priority=3, idempotency_key="k-1")
        bodies = [MergeSpec.model_validate(seen.json["spec"]) for seen in service.seen]
        assert bodies == [spec] * 4
        assert service.seen[0].json["spec"] == SPEC | {
            "models": [{"uri": "s3://runs/a"}, {"uri": "s3://runs/b"}]
        }
        assert service.seen[0].json["labels"] == {"run": "nightly"}
        assert service.seen[0].headers["Idempotency-Key"] == "k-1"

    def test_paths_do_not_depend_on_the_services_folder(
        self, client: Any, service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        service.will(status(202, job()))
        client.plan({**SPEC, "models": ["a", {"glob": "b-*", "weight": 2.0}], "output": "out"})
        assert service.seen[0].path == "/v1/plans"
        sent = service.seen[0].json["spec"]
        assert sent["output"] == f"{tmp_path}/out"
        assert sent["models"] == [{"uri": f"{tmp_path}/a"}, {"glob": f"{tmp_path}/b-*", "weight": 2.0}]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"spec": {**SPEC, "seed": -1, "outputs": "x"}},
            {"spec": "models: [a]\nseed: -1\n"},
            {"spec": SPEC, "labels": {"run": "not a label!"}, "priority": 1000},
            {"spec": SPEC, "attempts": 0},
        ],
    )
    def test_what_is_wrong_is_found_before_anything_is_sent(
        self, client: Any, service: ScriptedService, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(PlanRejected) as raised:
            client.submit(**wrong)
        assert {problem.kind for problem in raised.value.problems} == {"spec-invalid"}
        assert service.seen == []

    @pytest.mark.parametrize("key", ["", "a b", "ä", "x\r\nAuthorization: y", "k" * 256])
    def test_a_key_that_no_header_can_carry(self, client: Any, service: ScriptedService, key: str) -> None:
        with pytest.raises(SpecInvalid):
            client.submit(SPEC, idempotency_key=key)
        assert service.seen == []

    def test_jobs_of_all_pages(self, client: Any, service: ScriptedService) -> None:
        service.will(
            good({"jobs": [job(), job()], "next": JOB}), reset, good({"jobs": [job("failed")], "next": None})
        )
        found = list(
            client.jobs(
                state=["queued", JobState.FAILED],
                labels={"run": "nightly"},
                output="s3a://models/merged/",
                after=datetime(2026, 11, 26, tzinfo=UTC),
            )
        )
        assert [each.state.value for each in found] == ["queued", "queued", "failed"]
        first, _, last = (seen.path for seen in service.seen)
        asked = "/v1/jobs?state=queued&state=failed&label=run%3Dnightly&output=s3%3A%2F%2Fmodels%2Fmerged"
        assert first == f"{asked}&after=2026-11-26T00%3A00%3A00%2B00%3A00&limit=200"
        assert last == f"{first}&cursor={JOB}"

    def test_the_command_knows_all_states(self) -> None:
        assert tuple(JobState) == STATES

    def test_a_state_that_is_none(self, client: Any) -> None:
        with pytest.raises(SpecInvalid, match="one of queued, planning"):
            list(client.jobs(state="runing"))

    @pytest.mark.parametrize("number", ["../tokens", "a/b?c#d", "ü"])
    def test_an_id_is_one_part_of_the_path(self, client: Any, service: ScriptedService, number: str) -> None:
        service.will(error(404, "not-found"))
        with pytest.raises(NotFound):
            client.job(number)
        assert service.seen[0].path.count("/") == 3
        assert "?" not in service.seen[0].path

    def test_tokens(self, client: Any, service: ScriptedService) -> None:
        service.will(good({"tokens": [TOKEN_SAID]}), good({**TOKEN_SAID, "revoked": NOW}), good({}))
        assert [each.name for each in client.tokens.list()] == ["ci"]
        assert client.tokens.revoke("t-1").revoked is not None
        assert (service.seen[1].method, service.seen[1].path) == ("DELETE", "/v1/tokens/t-1")

    def test_me_and_the_audit_log(self, client: Any, service: ScriptedService) -> None:
        entry = {
            "time": NOW,
            "who": "ci",
            "team": "ci",
            "action": "job.submit",
            "target": JOB,
            "outcome": "ok",
        }
        service.will(
            good({"name": "ci", "team": "ci", "roles": ["read"], "read": [], "write": []}),
            good({"entries": [{"id": 3, **entry}, {"id": 2, **entry}], "next": 2}),
            good({"entries": [{"id": 1, **entry}], "next": None}),
        )
        assert client.me().roles == ["read"]
        assert [each.id for each in client.audit()] == [3, 2, 1]
        assert service.seen[2].path == "/v1/audit?cursor=2"

    def test_schedules(self, client: Any, service: ScriptedService) -> None:
        number = SCHEDULE_SAID["id"]
        service.will(
            status(201, SCHEDULE_SAID),
            good({"schedules": [SCHEDULE_SAID]}),
            good(SCHEDULE_SAID),
            good(SCHEDULE_SAID),
            good(SCHEDULE_SAID | {"paused": True}),
            good(SCHEDULE_SAID),
            status(202, TICK | {"manual": True}),
            good({"ticks": [TICK], "next": "x"}),
            good({"ticks": [TICK | {"state": "missed"}], "next": None}),
            status(200, ""),
        )
        schedules = client.schedules
        made = schedules.create(SCHEDULE)
        assert schedules.list() == [made]
        assert schedules.get(number) == made
        assert schedules.replace(number, ScheduleRequest.model_validate(SCHEDULE)) == made
        assert schedules.pause(number).paused
        assert not schedules.resume(number).paused
        assert schedules.run(number).manual
        assert [tick.state for tick in schedules.ticks(number)] == [TickState.WAITING, TickState.MISSED]
        schedules.delete(number)
        assert [f"{seen.method} {seen.path.removeprefix('/v1/schedules')}" for seen in service.seen] == [
            "POST ",
            "GET ",
            f"GET /{number}",
            f"PUT /{number}",
            f"POST /{number}/pause",
            f"POST /{number}/resume",
            f"POST /{number}/run",
            f"GET /{number}/ticks",
            f"GET /{number}/ticks?cursor=x",
            f"DELETE /{number}",
        ]

    def test_below_a_path(self, make: Callable[..., Any], service: ScriptedService) -> None:
        service.will(good(job()))
        make(f"{service.url}/plait/").job(JOB)
        assert service.seen[0].path == f"/plait/v1/jobs/{JOB}"
