"""Secrets that come near the service, and where they must not be seen: anywhere.

Labels and names are their users' words, and are kept as they are given. Everything else that may be a secret
in the wrong place is a canary here: what is refused is neither answered nor kept. There is one exception: a
wrong value of a key that has nothing to do with secrets (`seed: x`) is quoted to whoever sent it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from plait.jobs import JobState
from tests.support.checkpoints import Family, make_family
from tests.support.postgres import Postgres
from tests.support.service import Service, final

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY0000000001",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret/02",
    "AWS_SESSION_TOKEN": "canary-aws-session-03",
    "HF_TOKEN": "hf_canary04",
    "RAY_AUTH_TOKEN": "canary-ray-05",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_EC2_METADATA_DISABLED": "true",
}
QUOTED = {"mistyped value": "canary-mistyped-17"}
REFUSED = (403, 422)
NO_SECRETS = ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED")
PLAIT_TOKEN = "plait_canary-06-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
TYPED = {
    "password of a URI": "canary-password-07",
    "query of a URI": "canary-signature-08",
    "unknown key": "canary-unknown-09",
    "idempotency key": "canary-idempotency-10",
    "bad token": "canary-bearer-11",
    "bad token of our form": f"plait_canary-12-{'b' * 33}",
    "broken body": "canary-broken-13",
    "query of a request": "canary-query-14",
    "basic": "canary-basic-15",
    "header": "canary-header-16",
}


class Looked:
    """Everything that was seen, by where; and what is in it that must not be."""

    def __init__(self) -> None:
        self.seen: dict[str, bytes] = {}

    def answer(self, answer: httpx.Response) -> httpx.Response:
        head = "\n".join(f"{key}: {value}" for key, value in answer.headers.items()).encode()
        where = f"{len(self.seen)} {answer.request.method} {answer.request.url.path}"
        self.seen[where] = head + answer.content
        return answer

    def files(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.seen[str(path)] = path.read_bytes()

    def leaks(self, canaries: Mapping[str, str]) -> list[tuple[str, str]]:
        return [
            (name, where)
            for name, canary in canaries.items()
            for where, data in self.seen.items()
            if canary.encode() in data
        ]


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path / "models", {"a.weight": ("BF16", (64, 64))})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    env = {**ENVIRONMENT, "PLAIT_TOKEN": PLAIT_TOKEN}
    options = ("--debug", "--allow", "file")
    with Service(tmp_path / "service", *options, anonymous=False, env=env) as found:
        yield found


def bad_specs(family: Family) -> Iterator[Mapping[str, Any]]:
    """Secrets where people put them by mistake."""
    user = f"s3://ann:{TYPED['password of a URI']}@bucket/model"
    signed = f"s3://bucket/model?X-Amz-Signature={TYPED['query of a URI']}"
    for uri in (user, signed):
        yield {"spec": family.spec(base=uri)}
        yield {"spec": family.spec(models=[uri, str(family.root / "m1")])}
        yield {"spec": family.spec(models=[{"glob": f"{uri}/*"}])}
        yield {"spec": family.spec(output=uri)}
        yield {"spec": family.spec(copy_from=uri)}
    secret = TYPED["unknown key"]
    yield {"spec": family.spec(aws_secret_access_key=secret)}
    yield {"spec": family.spec(storage={"secret_key": secret})}
    yield {"spec": family.spec(storage={"buckets": {"runs": {"secret_access_key": secret}}})}
    yield {"spec": family.spec(), "token": secret}
    wrong = QUOTED["mistyped value"]
    yield {"spec": family.spec(seed=wrong)}
    yield {"spec": family.spec(storage={"pin": wrong})}
    yield {"spec": family.spec(storage={"buckets": {"runs": {"endpoint_url": f"https://a:{secret}@host"}}})}
    yield {"spec": family.spec(resources={"memory": wrong})}
    yield {"spec": family.spec(method={"name": wrong})}
    yield {"spec": wrong}
    yield {"spec": family.spec(), "priority": wrong}
    yield {"spec": family.spec(), "overwrite": wrong}


def ask_wrongly(looked: Looked, client: httpx.Client, family: Family) -> None:
    """Whatever is refused, with secrets in it."""
    for body in bad_specs(family):
        for route in ("/v1/jobs", "/v1/plans"):
            key = {"Idempotency-Key": TYPED["idempotency key"]}
            answer = looked.answer(client.post(route, json=body, headers=key))
            assert answer.status_code in REFUSED, (body, answer.text)
        schedule = {"name": "nightly", "cron": "0 2 * * *", "timezone": "UTC", **body}
        answer = looked.answer(client.post("/v1/schedules", json=schedule))
        assert answer.status_code in REFUSED, (body, answer.text)
    user, signed = f"s3://a:{TYPED['password of a URI']}@b/", f"s3://b/?sig={TYPED['query of a URI']}"
    for place in (user, signed):
        body = {"name": "x", "read": [place], "write": [place]}
        assert looked.answer(client.post("/v1/tokens", json=body)).status_code == 422
        assert looked.answer(client.get("/v1/jobs", params={"output": place})).status_code in (200, 422)
    for name in ("cursor", "limit", "state", "after"):
        asked = {name: f"{TYPED['query of a request']}!"}
        assert looked.answer(client.get("/v1/jobs", params=asked)).status_code == 422
    for path in ("/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/schedules/{}", "/v1/nothing/{}", "/{}"):
        answer = looked.answer(client.get(path.format(TYPED["query of a request"])))
        assert answer.status_code in (404, 422)
    content = f'{{"spec": "{TYPED["broken body"]}'.encode()
    headers = {"Content-Type": "application/json"}
    assert looked.answer(client.post("/v1/jobs", content=content, headers=headers)).status_code == 422
    content = content + b"\xff"
    assert looked.answer(client.post("/v1/jobs", content=content, headers=headers)).status_code == 422
    for header in (
        f"Bearer {TYPED['bad token']}",
        f"Bearer {TYPED['bad token of our form']}",
        f"Basic {TYPED['basic']}",
        TYPED["bad token"],
    ):
        for path in ("/v1/me", "/v1/jobs", "/metrics"):
            answer = client.get(path, headers={"Authorization": header, "X-Api-Key": TYPED["header"]})
            assert looked.answer(answer).status_code == 401


def ask_everything(looked: Looked, client: httpx.Client, numbers: list[str]) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json", "/metrics"):
        looked.answer(client.get(path))
    for path in ("jobs?limit=200", "audit?limit=200", "tokens", "schedules", "me"):
        looked.answer(client.get(f"/v1/{path}"))
    for number in numbers:
        for path in ("", "/events", "/logs"):
            answer = looked.answer(client.get(f"/v1/jobs/{number}{path}"))
            assert answer.status_code == 200, answer.text


def test_no_secret_is_seen_anywhere(service: Service, family: Family) -> None:
    places = [str(family.root), "s3://bucket/"]
    admin = service.token("root", roles=["admin"], read=places, write=places)
    weak = service.token("weak", roles=["read"])
    canaries = {
        **{name: value for name, value in ENVIRONMENT.items() if name not in NO_SECRETS},
        "PLAIT_TOKEN": PLAIT_TOKEN,
        **TYPED,
        "a token": admin.secret,
        "another token": weak.secret,
    }
    looked = Looked()
    with service.client(admin.secret) as client, service.client(weak.secret) as reader:
        ask_wrongly(looked, client, family)
        for body in bad_specs(family):
            assert looked.answer(reader.post("/v1/jobs", json=body)).status_code in REFUSED
        numbers = []
        for spec, state in (
            (family.spec(), JobState.SUCCEEDED),
            (family.spec(base=str(family.root / "nowhere")), JobState.FAILED),
            (family.spec(seed=1), JobState.FAILED),
        ):
            answer = looked.answer(client.post("/v1/jobs", json={"spec": spec}))
            assert answer.status_code == 202, answer.text
            numbers.append(answer.json()["id"])
            assert final(client, numbers[-1]).state is state
        secret = looked.answer(client.post("/v1/tokens", json={"name": "made"})).json()["secret"]
        ask_everything(looked, client, numbers)
        service.stop()
    looked.files(service.folder)
    looked.files(family.out)
    looked.seen["log"] = service.log_file.read_bytes()
    assert {"plait.db", "log"} <= {Path(where).name for where in looked.seen}
    assert {"plait.json", "README.md"} <= {Path(where).name for where in looked.seen}
    assert looked.leaks(canaries) == []
    assert looked.leaks(QUOTED)
    for _, where in looked.leaks(QUOTED):
        assert where.endswith(("POST /v1/jobs", "POST /v1/plans", "POST /v1/schedules")), where
    (told,) = looked.leaks({"a new token": secret})  # the one answer that tells it
    assert told[1].endswith("POST /v1/tokens")


def test_the_password_of_the_database_is_not_seen(tmp_path: Path, family: Family, postgres: Postgres) -> None:
    password = {"password of the database": "canary-database-18"}
    url = postgres.new_database().replace("plait@", f"plait:{password['password of the database']}@")
    looked = Looked()
    with Service(tmp_path / "service", "--debug", env={"PLAIT_DATABASE": url}) as service:
        with service.client() as client:
            answer = looked.answer(client.post("/v1/jobs", json={"spec": family.spec()}))
            assert final(client, answer.json()["id"]).state is JobState.SUCCEEDED
            ask_everything(looked, client, [answer.json()["id"]])
        looked.seen["command"] = " ".join(service.process.args).encode()
        assert service.stop() == 0
    looked.files(service.folder)
    looked.files(family.out)
    looked.seen["log"] = service.log_file.read_bytes()
    assert not (service.folder / "plait.db").exists()
    assert looked.leaks(password) == []
