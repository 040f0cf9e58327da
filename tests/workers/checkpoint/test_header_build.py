from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait_workers.checkpoint.dtypes import DTYPES, Dtype
from plait_workers.checkpoint.header import MAX_HEADER, build_header
from tests.workers.checkpoint.reading import assert_as_the_library, parse

Entries = list[tuple[str, Dtype, tuple[int, ...]]]


class TestBuild:
    def test_bytes_are_these(self) -> None:
        built = build_header([("b", DTYPES["F32"], (2, 1)), ("é", DTYPES["U8"], ())], {"z": "1", "a": '"'})
        text = (
            '{"__metadata__":{"a":"\\"","z":"1"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},'
            '"é":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}'
        ).encode()
        assert built[8:].rstrip(b" ") == text
        assert len(built) % 8 == 0
        assert int.from_bytes(built[:8], "little") == len(built) - 8 < len(text) + 8

    def test_nothing(self) -> None:
        assert build_header([], {}) == b"\x08" + bytes(7) + b"{}      "

    @pytest.mark.parametrize(
        ("entries", "metadata"),
        [
            ([("a", "U8", (1,)), ("a", "U8", (1,))], {}),
            ([("__metadata__", "U8", (1,))], {}),
            ([("__metadata__", "U8", (1,))], {"a": "b"}),
            ([("\ud800", "U8", (1,))], {}),
            ([], {"a": "\ud800"}),
            ([("a", "F4", (3,))], {}),
            ([("a", "U8", (-1,))], {}),
            ([("a", "U8", (0, 2**63))], {}),
            ([("a", "U8", (2**31, 2**32))], {}),
            ([("a", "U8", (2**59,)), ("b", "U8", (2**59,)), ("c", "U8", (2**63 - 1,))], {}),
            ([("a", "U8", (1,) * 65)], {}),
        ],
    )
    def test_refuses_what_no_file_can_hold(
        self, entries: list[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str]
    ) -> None:
        with pytest.raises(ValueError):
            build_header([(name, DTYPES[dtype], shape) for name, dtype, shape in entries], metadata)

    def test_refuses_a_header_above_the_limit(self) -> None:
        with pytest.raises(ValueError, match="limit"):
            build_header([], {"a": "x" * MAX_HEADER})

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
                    lambda s: s != "__metadata__"
                ),
                st.sampled_from(list(DTYPES.values())),
                st.lists(st.integers(0, 5), max_size=5).map(tuple),
            ),
            unique_by=lambda row: row[0],
            max_size=8,
        ),
        st.dictionaries(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=8)] * 2, max_size=4),
    )
    def test_round_trip(self, entries: Entries, metadata: dict[str, str]) -> None:
        whole = [row for row in entries if prod(row[2]) * row[1].bits % 8 == 0]
        size = sum(dtype.nbytes(prod(shape)) for _, dtype, shape in whole)
        data = build_header(whole, metadata) + bytes(i % 251 for i in range(size))
        header = parse(data)
        assert list(zip(header.names, header.dtypes, header.shapes, strict=True)) == whole
        assert header.metadata == metadata
        assert_as_the_library(header, data)
