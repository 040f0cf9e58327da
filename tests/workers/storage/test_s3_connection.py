"""Retries and concurrency, without a server: what is asked again, how often, and what that does."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from plait.errors import PlaitError, StoreUnavailable
from plait.spec_storage import StoreOptions
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.errors import SlowDown, WrongAnswer, map_error
from plait_workers.storage.s3.throttle import Throttle


def answer(status: int, code: str = "") -> ClientError:
    body = {
        "Error": {"Code": code or str(status), "Message": "m"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(body, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind", "again"),
    [
        (answer(500), "store-unavailable", True),
        (answer(503, "SlowDown"), "store-unavailable", True),
        (answer(429), "store-unavailable", True),
        (answer(400, "RequestTimeout"), "store-unavailable", True),
        (answer(409, "ConditionalRequestConflict"), "store-unavailable", True),
        (answer(400, "BadDigest"), "store-unavailable", True),
        (answer(400, "ExpiredToken"), "auth-expired", False),
        (answer(400, "InvalidArgument"), "store-refused", False),
        (answer(403, "AccessDenied"), "access-denied", False),
        (answer(403, "SignatureDoesNotMatch"), "access-denied", False),
        (answer(404, "NoSuchKey"), "source-missing", False),
        (answer(404, "NoSuchUpload"), "upload-gone", False),
        (answer(412), "source-changed", False),
        (answer(416), "source-changed", False),
        (answer(501, "NotImplemented"), "store-unsuitable", False),
        (answer(507), "no-space", False),
        (EndpointConnectionError(endpoint_url="http://h"), "store-unavailable", True),
        (ConnectionResetError(), "store-unavailable", True),
        (TimeoutError(), "store-unavailable", True),
        (NoCredentialsError(), "access-denied", False),
        (KeyError("a bug"), "internal", False),
    ],
)
def test_what_is_asked_again(error: Exception, kind: str, again: bool) -> None:
    mapped = map_error(error, "doing", "s3://b/k")
    assert mapped.kind == kind
    assert isinstance(mapped, StoreUnavailable) == again
    assert "s3://b/k" in str(mapped)


def failing(times: int, error: PlaitError) -> tuple[Callable[[], str], list[int]]:
    tries: list[int] = []

    def task() -> str:
        tries.append(1)
        if len(tries) <= times:
            raise error
        return "done"

    return task, tries


def test_it_is_asked_again_until_it_succeeds() -> None:
    task, tries = failing(3, StoreUnavailable("x"))
    assert Connection(StoreOptions(patience=30.0)).attempt(task) == "done"
    assert len(tries) == 4


def test_patience_ends() -> None:
    task, tries = failing(99, StoreUnavailable("x"))
    with pytest.raises(StoreUnavailable):
        Connection(StoreOptions(patience=0.0)).attempt(task)
    assert len(tries) == 1


def test_wrong_answers_are_not_chance_for_ever() -> None:
    task, tries = failing(99, WrongAnswer("x"))
    with pytest.raises(WrongAnswer):
        Connection(StoreOptions(patience=3600.0)).attempt(task)
    assert len(tries) == 5


def test_a_request_to_slow_down_halves_what_is_under_way() -> None:
    throttle = Throttle(16)
    assert throttle.limit == 16
    throttle.slow_down()
    assert throttle.limit == 8
    for _ in range(10):
        throttle.slow_down()
    assert throttle.limit == 1
    for _ in range(200):
        with throttle:
            pass
    assert throttle.limit == 16


def test_no_more_than_the_limit_are_under_way() -> None:
    throttle, lock = Throttle(3), threading.Lock()
    now, most = 0, 0

    def work() -> None:
        nonlocal now, most
        for _ in range(200):
            with throttle:
                with lock:
                    now += 1
                    most = max(most, now)
                with lock:
                    now -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 3


def test_errors_lower_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def ask(self, operation: str, arguments: object) -> None:
            raise answer(503, "SlowDown")

    connection = Connection(StoreOptions(concurrency=32))
    monkeypatch.setattr(connection, "_client", Client())
    with pytest.raises(SlowDown):
        connection.once("head_object", "looking", "s3://b/k")
    assert connection.admitted == 16
