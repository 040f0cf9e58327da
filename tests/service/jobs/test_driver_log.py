"""What a driver wrote, in pieces of any length."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from plait_service.jobs.driver_log import read_piece

LINES = [
    {"time": "2026-11-25T23:42:20.872Z", "level": "info", "job": "9b91", "kind": "claimed", "epoch": 1},
    {"time": "2026-11-25T23:42:21.000Z", "level": "info", "job": "9b91", "kind": "progress", "bytes_done": 5},
    {"status": "done", "output": "s3://b/ö", "seconds": 1.5},
]
TEXT = "\n".join(
    [
        "a library prints {this}",
        *(json.dumps(line, ensure_ascii=False) for line in LINES),
        "{no json",
        "[1]",
        "7",
    ]
).encode()


@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=8))
def test_pieces_are_as_good_as_the_whole(cuts: list[int]) -> None:
    whole = read_piece(TEXT, is_last=True)
    assert [event.kind for event in whole.events] == ["claimed", "progress"]
    assert whole.events[0].data == {"epoch": 1}
    assert whole.events[0].time.isoformat() == "2026-11-25T23:42:20.872000+00:00"
    assert whole.said == LINES[2]
    events, said, offset = [], None, 0
    for end in [*sorted(cuts), len(TEXT)]:
        piece = read_piece(TEXT[offset:end], is_last=end == len(TEXT))
        events += piece.events
        said = piece.said or said
        offset += piece.length
    assert (tuple(events), said, offset) == (whole.events, whole.said, len(TEXT))


def test_a_line_without_an_end_waits_for_it_but_not_for_ever() -> None:
    assert read_piece(b'{"kind": "cla', is_last=False).length == 0
    assert read_piece(b"x" * (1 << 20), is_last=False).length == 1 << 20


def test_the_last_word_counts() -> None:
    text = b'{"status": "failed", "error": {"kind": "no-space"}}\n{"status": "done"}'
    assert read_piece(text, is_last=True).said == {"status": "done"}
