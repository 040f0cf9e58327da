"""Jobs that are watched and waited for over connections that break, by both clients."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.scripted_service import (
    END,
    JOB,
    Answer,
    Handler,
    ScriptedService,
    after_last_seen,
    attempts,
    cut,
    error,
    event,
    good,
    job,
    pieces,
    reset,
    silence,
    status,
)

from plait.errors import (
    Cancelled,
    CommitUnknown,
    InternalError,
    NotFound,
    PlaitError,
    PlanRejected,
    ServiceError,
    ServiceUnavailable,
    SourceMissing,
    SpecInvalid,
)
from plait.jobs import JobEvent, JobState

EVENTS = [
    event(1, "state", state="queued"),
    event(2, "planned", parts=3),
    event(3),
    event(4, "state", state="succeeded"),
]


@pytest.fixture
def handle(client: Any, service: ScriptedService) -> Any:
    """A job that was looked at once."""
    service.will(good(job()))
    found = client.job(JOB)
    service.seen.clear()
    return found


def ids(events: list[JobEvent]) -> list[int]:
    return [each.id for each in events]


def paths(service: ScriptedService) -> list[str]:
    return [seen.path.removeprefix(f"/v1/jobs/{JOB}") for seen in service.seen]


class TestWatch:
    def test_each_event_once_and_in_order(self, handle: Any, service: ScriptedService) -> None:
        service.will(pieces(*EVENTS, END), good(job("succeeded")))
        found = list(handle.watch())
        assert ids(found) == [1, 2, 3, 4]
        assert (found[1].kind, found[1].data) == ("planned", {"parts": 3})
        assert handle.state is JobState.SUCCEEDED
        assert "Last-Event-ID" not in service.seen[0].headers

    @pytest.mark.parametrize("trouble", [cut, reset, None], ids=["cut", "reset", "ended"])
    def test_from_where_a_connection_broke(
        self, handle: Any, service: ScriptedService, trouble: Answer | None
    ) -> None:
        service.will(
            pieces(*EVENTS[:2], EVENTS[2][:40], then=trouble),
            status(503, ""),
            reset,
            after_last_seen(*EVENTS),
            good(job("succeeded")),
        )
        assert ids(list(handle.watch())) == [1, 2, 3, 4]
        first, *others = (seen.headers.get("Last-Event-ID") for seen in service.seen[:4])
        assert first is None
        # What was sent before a connection is reset may be lost with it.
        assert others == ["2"] * 3 or (trouble is reset and others in (["1"] * 3, [None] * 3))

    def test_from_an_event_on(self, handle: Any, service: ScriptedService) -> None:
        service.will(pieces(*EVENTS[2:], END), good(job("succeeded")))
        assert ids(list(handle.watch(2))) == [3, 4]
        assert service.seen[0].headers["Last-Event-ID"] == "2"

    def test_a_service_that_is_restarted_ends_nothing(self, handle: Any, service: ScriptedService) -> None:
        service.will(
            pieces(*EVENTS[:2], END), good(job("running")), pieces(*EVENTS[2:], END), good(job("succeeded"))
        )
        assert ids(list(handle.watch())) == [1, 2, 3, 4]

    def test_a_job_that_is_not_there(self, handle: Any, service: ScriptedService) -> None:
        service.will(error(404, "not-found"))
        with pytest.raises(NotFound):
            list(handle.watch())

    @pytest.mark.parametrize("said", [b"data: nonsense\n\n", b"data: {}\n\n"])
    def test_what_is_no_event_of_ours(self, handle: Any, service: ScriptedService, said: bytes) -> None:
        service.will(pieces(said))
        with pytest.raises(ServiceError, match="not understood"):
            list(handle.watch())

    def test_patience_ends(self, make: Callable[..., Any], service: ScriptedService) -> None:
        service.will(good(job()), *[reset] * 20)
        handle = make(service.url, patience=0.5).job(JOB)
        with pytest.raises(ServiceUnavailable):
            list(handle.watch())


class TestWait:
    def test_for_the_end(self, handle: Any, service: ScriptedService) -> None:
        state = "running"

        def last(handler: Handler) -> None:
            nonlocal state
            state = "succeeded"
            after_last_seen(*EVENTS)(handler)

        def now(handler: Handler) -> None:
            good(job(state))(handler)

        service.on("/events", pieces(EVENTS[0], then=cut), last)
        service.will(*[now] * 10)
        assert handle.wait().state is JobState.SUCCEEDED
        assert len([path for path in paths(service) if path == "/events"]) == 2

    def test_where_events_do_not_come_through(self, handle: Any, service: ScriptedService) -> None:
        service.will(reset, good(job("succeeded")))
        assert handle.wait().state is JobState.SUCCEEDED
        assert paths(service) == ["/events", ""]

    def test_no_longer_than_one_says(self, handle: Any, service: ScriptedService) -> None:
        def running(handler: Handler) -> None:
            (pieces(then=silence) if handler.path.endswith("/events") else good(job("running")))(handler)

        service.will(*[running] * 50)
        with pytest.raises(TimeoutError, match="it goes on"):
            handle.wait(timeout=0.3)

    def test_for_the_plan(self, handle: Any, service: ScriptedService) -> None:
        service.will(pieces(EVENTS[0], then=silence), good(job("running", plan={"parts": 3})))
        assert handle.verdict().plan == {"parts": 3}

    @pytest.mark.parametrize(
        ("said", "kind", "text"),
        [
            (job("cancelled"), Cancelled, "cancelled"),
            (job("unknown"), CommitUnknown, "not known"),
            (job("failed"), InternalError, "nobody said why"),
            (
                job("failed", error={"kind": "source-missing", "message": "s3://a: no model"}),
                SourceMissing,
                "^s3://a: no model$",
            ),
        ],
    )
    def test_result_raises_what_the_merge_would_have(
        self, handle: Any, service: ScriptedService, said: object, kind: type[PlaitError], text: str
    ) -> None:
        service.will(pieces(EVENTS[0], END), *[good(said)] * 2)
        with pytest.raises(kind, match=text):
            handle.result()

    def test_result_raises_all_problems(self, handle: Any, service: ScriptedService) -> None:
        problems = PlanRejected([SpecInvalid("one", where="a"), SpecInvalid("two", found="b")])
        service.will(pieces(EVENTS[0], END), good(job("failed", error=problems.to_json())))
        with pytest.raises(PlanRejected) as raised:
            handle.result()
        assert raised.value.to_json() == problems.to_json()

    def test_progress_is_lines_where_there_is_no_terminal(
        self, handle: Any, service: ScriptedService, capfd: pytest.CaptureFixture[str]
    ) -> None:
        going = event(2, bytes_done=5_000_000, bytes_total=10_000_000, rate=1_000_000.0, seconds_left=5.0)
        service.will(
            pieces(EVENTS[0], going, event(3, "state", state="running"), END),
            good(job("running")),
            good(job("succeeded")),
        )
        handle.wait(show=True)
        lines = capfd.readouterr().err.splitlines()
        assert lines == ["queued", "5 MB of 10 MB (50%), 1 MB/s, 5 s left", "running", "succeeded"]

    def test_and_nothing_unless_it_is_wanted(
        self, handle: Any, service: ScriptedService, capfd: pytest.CaptureFixture[str]
    ) -> None:
        service.will(pieces(EVENTS[0], END), good(job("succeeded")))
        handle.wait()
        assert capfd.readouterr() == ("", "")


class TestCancelAndRetry:
    def test_the_handle_knows_what_was_said(self, handle: Any, service: ScriptedService) -> None:
        service.will(reset, good(job("cancelled")), good(job("queued")))
        assert handle.cancel().state is JobState.CANCELLED
        assert handle.job.state is JobState.CANCELLED
        assert handle.retry().state is JobState.QUEUED
        assert [f"{seen.method} {path}" for seen, path in zip(service.seen, paths(service), strict=True)] == [
            "POST /cancel",
            "POST /cancel",
            "POST /retry",
        ]
        assert repr(handle) == f"<plait job {JOB}: queued, s3://models/merged>"


def text(*chunks: bytes, then: Answer | None = None) -> Answer:
    return pieces(*chunks, then=then, kind="text/plain")


class TestLogs:
    def test_lines(self, handle: Any, service: ScriptedService) -> None:
        service.will(
            good(job("succeeded", attempts=attempts("succeeded"))), text(b"on", b"e\ntw\xc3", b"\xb6\nrest")
        )
        assert list(handle.logs()) == ["one", "twö", "rest"]
        assert paths(service) == ["", "/logs?attempt=1"]

    def test_the_last_of_them(self, handle: Any, service: ScriptedService) -> None:
        going = job("running", attempts=attempts("lost", None))
        service.will(good(going), text(b"b\n", then=cut), text(b"b\nc\n"))
        assert list(handle.logs(tail=2)) == ["b", "c"]
        assert paths(service)[1:] == ["/logs?attempt=2&tail=2"] * 2

    def test_of_one_attempt(self, handle: Any, service: ScriptedService) -> None:
        service.will(good(job("running", attempts=attempts("lost", None))), text(b"a\n"))
        assert list(handle.logs(attempt=1)) == ["a"]

    def test_before_there_is_one(self, handle: Any, service: ScriptedService) -> None:
        service.will(good(job()), error(404, "not-found"))
        with pytest.raises(NotFound):
            list(handle.logs())

    def test_followed_over_broken_connections_and_to_the_next_attempt(
        self, handle: Any, service: ScriptedService
    ) -> None:
        one, two = job("running", attempts=attempts(None)), job("running", attempts=attempts("lost", None))
        over = job("failed", attempts=attempts("lost", "failed"))
        service.will(
            good(job()),
            pieces(EVENTS[0], event(2, "state", state="planning"), END),
            good(job()),
            good(one),
            text(b"a\nb", then=cut),
            text(b"a\nb\nc\n", then=cut),
            text(b"a\nb\nc\nd"),
            good(two),
            good(two),
            text(b"e\n"),
            *[good(over)] * 2,
        )
        assert list(handle.logs(follow=True)) == ["a", "b", "c", "d", "e"]
        asked = [path for path in paths(service) if path.startswith("/logs")]
        assert asked == ["/logs?attempt=1&follow=true"] * 3 + ["/logs?attempt=2&follow=true"]

    def test_followed_from_the_last_lines_on(self, handle: Any, service: ScriptedService) -> None:
        going = job("running", attempts=attempts(None))
        service.will(
            good(going),
            text(b"a\nb\nc\nd"),
            text(b"a\nb\nc\nd", then=cut),
            text(b"a\nb\nc\nde\nf\n"),
            *[good(job("succeeded", attempts=attempts("succeeded")))] * 2,
        )
        assert list(handle.logs(follow=True, tail=2)) == ["b", "c", "de", "f"]

    def test_followed_over_a_restart_of_the_service(self, handle: Any, service: ScriptedService) -> None:
        going = job("running", attempts=attempts(None))
        over = job("succeeded", attempts=attempts("succeeded"))
        service.will(good(going), text(b"a\n"), good(going), text(b"a\nb\n"), *[good(over)] * 2)
        assert list(handle.logs(follow=True)) == ["a", "b"]

    def test_a_job_that_ends_before_a_driver_was_started(self, handle: Any, service: ScriptedService) -> None:
        service.will(good(job("cancelled")))
        assert list(handle.logs(follow=True)) == []


def test_threads_share_a_client(service: ScriptedService) -> None:
    from plait import Client

    service.will(*[good(job())] * 40)
    found: list[str] = []
    with Client(service.url) as client:
        threads = [
            threading.Thread(target=lambda: found.extend(client.job(JOB).id for _ in range(10)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [JOB] * 40
