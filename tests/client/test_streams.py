"""What is read from bytes, however they are cut: events, logs, and errors from their JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import errors
from plait.answered_errors import error_of
from plait.errors import PlaitError, PlanRejected, ServiceError, ServiceUnavailable
from plait.following import LogFeed
from plait.retries import FIRST, LONGEST, Again, retry_after, wait_after
from plait.sse import MOST, EventDecoder, EventTooLarge, ServerEvent


def cuts(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def decoded(chunks: Sequence[bytes]) -> list[ServerEvent]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


PLACES = st.lists(st.integers(0, 500), max_size=12)
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


class TestEvents:
    @given(
        st.lists(st.tuples(TEXT, st.integers(0, 99)), max_size=5),
        st.sampled_from(["\n", "\r\n", "\r"]),
        PLACES,
    )
    def test_are_the_same_however_they_come(
        self, events: list[tuple[str, int]], end: str, at: list[int]
    ) -> None:
        written = "".join(
            f": ping{end}{end}id: {number}{end}event: x{end}data: {text}{end}{end}" for text, number in events
        )
        data = written.encode() + b"\n"  # what follows a CR may be its LF
        expected = [ServerEvent("x", text, str(number)) for text, number in events]
        assert decoded(cuts(data, at)) == expected

    def test_of_several_lines_and_without_spaces(self) -> None:
        assert decoded([b"\xef\xbb\xbfdata:a\ndata: b\ndata\n\ndata:  c\nretry: 5\nnew: field\n\n"]) == [
            ServerEvent("message", "a\nb\n", ""),
            ServerEvent("message", " c", ""),
        ]

    def test_only_line_ends_end_lines(self) -> None:
        text = "a\u2028b\x85c\x0bd"
        assert [event.data for event in decoded([f"data: {text}\n\n".encode()])] == [text]

    def test_one_that_is_cut_never_was(self) -> None:
        assert decoded([b"id: 1\ndata: a\n\nid: 2\ndata: b\n"]) == [ServerEvent("message", "a", "1")]

    @pytest.mark.parametrize("line", [b"x" * 60_000, b"data: " + b"x" * 60_000 + b"\n"])
    def test_one_that_never_ends(self, line: bytes) -> None:
        with pytest.raises(EventTooLarge):
            decoded([line] * (MOST // 60_000 + 1))


class TestLogs:
    @given(
        st.lists(TEXT, max_size=6),
        st.booleans(),
        st.lists(st.tuples(st.integers(0, 200), PLACES), max_size=4),
        st.none() | st.integers(1, 4),
    )
    def test_are_the_same_over_connections_that_break(
        self, lines: list[str], whole: bool, broken: list[tuple[int, list[int]]], tail: int | None
    ) -> None:
        data = "\n".join(lines).encode() + (b"\n" if whole and lines else b"")
        expected = data.decode().split("\n")
        expected = expected[:-1] if expected[-1] == "" else expected
        feed = LogFeed("j", 1, follow=True, tail=tail, patience=60)
        found: list[str] = []
        for end, at in broken:
            feed.call()
            for chunk in cuts(data[:end], at):
                found += feed.feed(chunk)
        while not feed.ended:
            feed.call()
            found += feed.feed(data)
            found += feed.end()
        if tail is None:
            assert found == expected
        else:  # a last line without its end counts when it has one
            there = data.decode().split("\n")[:-1]
            assert found == there[-tail:] + expected[len(there) :]


def _kinds(root: type[PlaitError] = PlaitError) -> list[type[PlaitError]]:
    found = []
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += [child] * ("kind" in vars(child) and child is not PlanRejected)
            found += _kinds(child)
    return found


class TestErrors:
    @given(st.sampled_from(_kinds()), TEXT, *[st.none() | TEXT] * 4)
    def test_come_back_as_they_were(
        self,
        kind: type[PlaitError],
        doing: str,
        where: str | None,
        expected: str | None,
        found: str | None,
        hint: str | None,
    ) -> None:
        error = kind(doing, where=where, expected=expected, found=found, hint=hint)
        back = error_of(json.loads(json.dumps(error.to_json())))
        assert type(back) is kind
        assert vars(back) == vars(error)
        assert back.to_json() == error.to_json()
        several = error_of(json.loads(json.dumps(PlanRejected([error, error]).to_json())))
        assert several.to_json() == PlanRejected([error, error]).to_json()

    @given(
        st.dictionaries(
            st.sampled_from(["kind", "message", "where", "hint", "problems"]), st.text() | st.integers()
        )
    )
    def test_whatever_is_said_is_an_error(self, said: dict[str, object]) -> None:
        assert isinstance(error_of(said), PlaitError)

    def test_a_text_that_does_not_fit_its_fields_is_kept(self) -> None:
        found = error_of({"kind": "forbidden", "message": "no", "where": "s3://a", "hint": "Ask"})
        assert (type(found).__name__, str(found)) == ("Forbidden", "no")

    def test_a_kind_that_is_not_known(self) -> None:
        assert type(error_of({"kind": "new", "message": "x"})) is ServiceError
        assert type(error_of({"kind": "error", "message": "x"})) is ServiceError


class TestWaits:
    @pytest.mark.parametrize(
        ("value", "seconds"), [(None, None), ("3", 3.0), (" 0 ", 0.0), ("soon", None), ("-1", None)]
    )
    def test_retry_after(self, value: str | None, seconds: float | None) -> None:
        assert retry_after(value) == seconds

    def test_retry_after_a_date(self) -> None:
        moment = datetime.now(UTC) + timedelta(seconds=100)
        assert 90 <= (retry_after(format_datetime(moment, usegmt=True)) or 0) <= 100
        assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0

    @given(st.integers(1, 2000))
    def test_grow_and_are_bounded(self, failures: int) -> None:
        again = Again(ServiceUnavailable("x"))
        assert 0 <= wait_after(failures, again) <= min(LONGEST, FIRST * 2 ** min(failures - 1, 30))
        assert wait_after(failures, Again(again.error, 7.0)) >= 7.0
