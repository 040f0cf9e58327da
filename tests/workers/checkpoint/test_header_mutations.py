"""Random damage: the parser says CheckpointMalformed or agrees with the library, and nothing else."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from plait.errors import CheckpointMalformed
from tests.workers.checkpoint.malformed import entry, file
from tests.workers.checkpoint.reading import assert_as_the_library, parse

GOOD = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": entry("F32", [2, 3], 0, 24),
        "b.-0.weight": entry("U8", [], 24, 25),
        "é": entry("F4", [0, 2], 25, 25),
    },
    separators=(",", ":"),
).encode()
SNIPPETS = [
    *(b'" , : { } [ ] \\ 0 1 - -0 -1 1.0 1e0 01 24 25 26 4294967296 18446744073709551616 true null'.split()),
    *(b'NaN Infinity [] {} "" [0,0] [0] "U8" "F4" "C64" "I64" "dtype" "shape" "data_offsets" "a"'.split()),
    *(b'"__metadata__" "__metadata__":{"k":"v"}, "a":{}, \\ud83d \\ude00 \\u0061 \xed\xa0\x80'.split()),
    *(b"\xef\xbb\xbf", b" ", b"\n", b"\t", b"\x00", b"\x7f", b"\xff", b"'", b"[" * 5000),
    b'"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},',
]


def check(data: bytes) -> bool:
    """Whether our parser accepts ``data``; if so the library has to agree with it."""
    try:
        header = parse(data)
    except CheckpointMalformed:
        return False
    assert_as_the_library(header, data)
    return True


def test_the_good_file_is_good() -> None:
    assert check(file(GOOD, bytes(25)))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The good header after a few cuts, insertions, replacements and moves."""
    raw = GOOD
    for _ in range(draw(st.integers(1, 4))):
        low = draw(st.integers(0, len(raw)))
        high = min(len(raw), low + draw(st.integers(0, 12)))
        tail = raw[high:]
        match draw(st.integers(0, 3)):
            case 0:
                raw = raw[:low] + tail
            case 1:
                raw = raw[:low] + draw(st.sampled_from(SNIPPETS)) + raw[low:]
            case 2:
                raw = raw[:low] + draw(st.sampled_from(SNIPPETS)) + tail
            case _:
                at = draw(st.integers(0, len(raw)))
                raw = raw[:at] + raw[low:high] + raw[at:]
    return raw


@settings(deadline=None, max_examples=600)
@given(mutated(), st.integers(22, 28))
def test_edited_text(raw: bytes, size: int) -> None:
    check(file(raw, bytes(size)))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=64), st.integers(-3, 3))
@example(b"{}", 0)
def test_any_bytes(raw: bytes, off: int) -> None:
    check(raw)
    check(max(0, len(raw) + off).to_bytes(8, "little") + raw)


# Values near to good ones, so that a fair share of the files is accepted.
SIZES = st.integers(-1, 4) | st.sampled_from([True, 1.0, None, "1", 2**31, 2**62, 2**63, 2**64, 10**30])
SHAPES = st.lists(st.integers(0, 4), max_size=3) | st.lists(SIZES, max_size=4) | SIZES
OFFSETS = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted) | st.lists(SIZES, max_size=3) | SIZES
FIELDS = {"dtype": st.sampled_from(["U8", "F4", "F16", "F6_E2M3", "I64", "X", None]), "shape": SHAPES}
VALUES = st.fixed_dictionaries({**FIELDS, "data_offsets": OFFSETS}) | st.fixed_dictionaries(
    {}, optional={**FIELDS, "data_offsets": OFFSETS, "note": SIZES}
)
NAMES = st.sampled_from(["a", "b", "c", "__metadata__", "dtype", "\ud800", "é", ""])


@settings(deadline=None, max_examples=600)
@given(
    st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, NAMES | SIZES, max_size=2), max_size=4),
    st.integers(0, 12),
)
def test_any_values(header: dict[str, object], size: int) -> None:
    check(file(json.dumps(header), bytes(size)))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(NAMES.filter(lambda s: s[:1] not in "_\ud800"), st.integers(0, 5), st.booleans()),
        max_size=6,
    ),
    st.permutations(range(6)),
    st.integers(-1, 1),
)
def test_layouts(tensors: list[tuple[str, int, bool]], order: list[int], nudge: int) -> None:
    """Tensors laid one after another and listed in any order; one bound is moved in two of three cases."""
    at, rows = 0, []
    for i, (name, size, scalar) in enumerate(tensors):
        shape = [] if scalar and size == 1 else [size]
        rows.append((f"{name}{i}", entry("U8", shape, at, at + size)))
        at += size
    rows = [rows[i] for i in order if i < len(rows)]
    accepted = check(file(dict(rows), bytes(max(0, at + nudge))))
    assert accepted == (nudge == 0 or at + nudge < 0)
