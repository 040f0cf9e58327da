"""Random damage: the parser says CheckpointMalformed or agrees with the library, and nothing else."""

from __future__ import annotations

import json
from math import prod

from hypothesis import example, given, settings
from hypothesis import strategies as st

from plait.errors import CheckpointMalformed
from plait_workers.checkpoint.dtypes import DTYPES
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
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        low = draw(st.integers(0, len(raw)))
        high = min(len(raw), low + draw(st.sampled_from([0, 0, 1, 2, 5, 12])))
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
@given(mutated(), st.sampled_from([25] * 8 + [0, 24, 26]))
def test_edited_text(raw: bytes, size: int) -> None:
    check(file(raw, bytes(size)))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=64), st.integers(-3, 3))
@example(b"{}", 0)
def test_any_bytes(raw: bytes, off: int) -> None:
    check(raw)
    check(max(0, len(raw) + off).to_bytes(8, "little") + raw)


NAMES = st.sampled_from(["a", "b", "c", "__metadata__", "dtype", "\ud800", "é", ""])
TYPES = st.sampled_from(["U8", "F4", "F16", "F6_E2M3", "I64", "C64"])
ODD: st.SearchStrategy[object] = st.recursive(
    st.sampled_from(
        [True, False, None, -1, 0, 1, 2, 1.0, "", "1", "U8", "X", 2**31, 2**62, 2**63, 2**64, 10**30]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def near_good(draw: st.DrawFn) -> tuple[dict[str, object], int]:
    """Tensors one after another in any order; in half of the cases one value is an odd one."""
    rows: list[tuple[str, dict[str, object]]] = []
    at = 0
    for i in range(draw(st.integers(0, 4))):
        dtype, shape = DTYPES[draw(TYPES)], draw(st.lists(st.sampled_from([0, 1, 2, 4]), max_size=3))
        size = prod(shape) * dtype.bits // 8  # not whole bytes, at times
        rows.append((draw(NAMES) + str(i), entry(dtype.name, shape, at, at + size)))
        at += size
    header: dict[str, object] = dict(draw(st.permutations(rows)))
    if draw(st.booleans()):
        victim = draw(st.sampled_from([*header, "__metadata__"]))
        fields = header.get(victim)
        if isinstance(fields, dict) and draw(st.integers(0, 3)):
            fields[draw(st.sampled_from(["dtype", "shape", "data_offsets", "data_offsets", "note"]))] = draw(
                ODD | st.lists(st.integers(0, 9), min_size=2, max_size=2)
            )
        else:
            header[victim] = draw(ODD | st.dictionaries(NAMES, NAMES, max_size=2))
    return header, at


@settings(deadline=None, max_examples=600)
@given(near_good(), st.sampled_from([0] * 8 + [-1, 1]), st.booleans())
def test_odd_values(case: tuple[dict[str, object], int], off: int, ascii_only: bool) -> None:
    header, size = case
    raw = json.dumps(header, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    check(file(raw, bytes(max(0, size + off))))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from("abé"), st.integers(0, 5), st.booleans()), max_size=6),
    st.permutations(range(6)),
    st.integers(-1, 1),
)
def test_layouts(tensors: list[tuple[str, int, bool]], order: list[int], off: int) -> None:
    """Tensors one after another, listed in any order, are accepted if the data ends with them."""
    at, rows = 0, []
    for i, (name, size, scalar) in enumerate(tensors):
        shape = [] if scalar and size == 1 else [size]
        rows.append((f"{name}{i}", entry("U8", shape, at, at + size)))
        at += size
    rows = [rows[i] for i in order if i < len(rows)]
    data_bytes = max(0, at + off)
    assert check(file(dict(rows), bytes(data_bytes))) == (data_bytes == at)
