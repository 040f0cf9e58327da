"""Limits: of the bytes of a body, however it comes, and of requests a minute."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

from plait.errors import TooManyRequests
from plait_service.api.limits import BodyLimit, RateExceeded, Rates
from plait_service.jobs.database import Database
from tests.service.access.house import MOST, House, kind_of

DEADLINE = 30.0


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """A real server in a thread, on a free port."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        until = time.monotonic() + DEADLINE
        while not server.started and thread.is_alive() and time.monotonic() < until:
            threading.Event().wait(0.01)
        assert server.started
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()


def body_of(size: int) -> bytes:
    frame = b'{"text":""}'
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


def in_pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 300):
        yield body[start : start + 300]


class TestBodies:
    @pytest.fixture
    def client(self, house: House) -> Iterator[httpx.Client]:
        made = house.token("ci", "submit")
        headers = {"Authorization": f"Bearer {made.secret}", "Content-Type": "application/json"}
        with (
            served(house.app) as url,
            httpx.Client(base_url=url, headers=headers, timeout=DEADLINE) as client,
        ):
            yield client

    def test_the_largest_passes_in_one_and_in_pieces(self, client: httpx.Client, house: House) -> None:
        assert client.post("/submit", content=body_of(MOST)).status_code == 200
        assert client.post("/submit", content=in_pieces(body_of(MOST))).status_code == 200
        assert house.done == ["ci", "ci"]

    @pytest.mark.parametrize("size", [MOST + 1, 10 * MOST, 3_000_000])
    @pytest.mark.parametrize("pieces", [False, True])
    def test_a_larger_one_is_refused_in_our_form(
        self, client: httpx.Client, house: House, size: int, pieces: bool
    ) -> None:
        body = body_of(size)
        response = client.post("/submit", content=in_pieces(body) if pieces else body)
        assert response.status_code == 413
        assert kind_of(response) == "too-large"
        assert "at most 1,000 bytes" in response.json()["error"]["message"]
        assert house.done == []
        assert client.post("/submit", content=body_of(MOST)).status_code == 200  # the service goes on

    def test_a_route_that_reads_no_body_does_nothing_either(self, client: httpx.Client, house: House) -> None:
        assert client.post("/submit-nothing", content=body_of(MOST + 1)).status_code == 413
        assert house.done == []

    def test_a_length_that_is_said_is_believed_before_the_body_comes(
        self, client: httpx.Client, house: House
    ) -> None:
        host, port = str(client.base_url.host), client.base_url.port
        assert port is not None
        with closing(socket.create_connection((host, port), timeout=DEADLINE)) as raw:
            raw.sendall(
                b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n{}"
            )
            raw.shutdown(socket.SHUT_WR)
            assert b" 4" in raw.recv(4096).splitlines()[0]
        assert house.done == []

    def test_it_is_refused_without_a_token_too(self, house: House) -> None:
        response = house.client().post("/submit", content=body_of(MOST + 1))
        assert response.status_code == 413

    def test_what_an_app_makes_of_a_broken_body_is_not_shown(self) -> None:
        app = FastAPI()
        seen = []

        @app.post("/")
        async def stubborn(request: Request) -> str:
            try:
                await request.body()
            except Exception as error:
                seen.append(error)
            return "all is well"

        app.add_middleware(BodyLimit, most=10)
        with served(app) as url:
            response = httpx.post(url, content=in_pieces(b"x" * 1000), timeout=DEADLINE)
        assert response.status_code == 413
        assert kind_of(response) == "too-large"
        assert len(seen) == 1


def passed(count: Callable[[], None], most: int) -> int:
    """How many pass before one is refused. A minute that begins meanwhile may add some."""
    for number in range(2 * most + 2):
        try:
            count()
        except TooManyRequests:
            return number
    raise AssertionError("nothing was refused")


class TestRates:
    def test_requests_are_counted_by_token(self) -> None:
        rates = Rates(5)
        assert passed(lambda: rates.count_request("ci"), 5) >= 5
        with pytest.raises(RateExceeded) as caught:
            rates.count_request("ci")
        assert caught.value.kind == "too-many-requests"
        assert caught.value.retryable
        assert 1 <= caught.value.retry_after <= 120
        assert f"Try again in {caught.value.retry_after} s" in str(caught.value)
        rates.count_request("dev")

    def test_requests_and_failures_are_apart(self) -> None:
        rates = Rates(5, 5)
        passed(lambda: rates.count_request("192.0.2.1"), 5)
        rates.count_failure("192.0.2.1")

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8::1", "2001:db8::2", True),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
            (None, "not an address", True),
        ],
    )
    def test_failures_are_counted_by_network(self, one: str | None, other: str, same: bool) -> None:
        rates = Rates(5, 3)
        assert passed(lambda: rates.count_failure(one), 3) >= 3
        if same:
            with pytest.raises(TooManyRequests):
                rates.count_failure(other)
        else:
            rates.count_failure(other)

    def test_a_fast_token_is_told_to_wait(self, database: Database, tmp_path: Path) -> None:
        house = House(database, tmp_path, rates=Rates(5))
        client = house.client(house.token("ci"))
        answers = [client.get("/read") for _ in range(12)]
        assert {answer.status_code for answer in answers[:5]} == {200}
        assert answers[-1].status_code == 429
        assert kind_of(answers[-1]) == "too-many-requests"
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert house.client(house.token("dev")).get("/read").status_code == 200

    def test_bad_tokens_are_slowed_down_and_good_ones_pass(self, database: Database, tmp_path: Path) -> None:
        house = House(database, tmp_path, rates=Rates(6000, 5))
        made = house.token("ci")
        statuses = [house.client("plait_wrong").get("/read").status_code for _ in range(12)]
        assert set(statuses[:5]) == {401}
        assert statuses[-1] == 429
        assert house.client().get("/read").status_code == 429
        assert house.client(made).get("/read").status_code == 200
