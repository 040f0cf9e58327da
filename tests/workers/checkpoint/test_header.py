from __future__ import annotations

import json
import pickle
import time
from math import prod
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from plait.errors import CheckpointMalformed
from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.checkpoint.header import MAX_HEADER, build_header, parse_header, parse_prefix
from tests.workers.checkpoint.malformed import CASES, STRICTER, U8, Builder, entry, file
from tests.workers.checkpoint.reading import WHERE, assert_as_the_library, parse

IDS = [name for name, _ in CASES]


class TestMalformed:
    @pytest.mark.parametrize("build", [build for _, build in CASES], ids=IDS)
    def test_refused_with_the_file_named(self, build: Builder) -> None:
        with pytest.raises(CheckpointMalformed) as refused:
            parse(build())
        error = refused.value
        assert error.where == WHERE
        assert error.expected
        assert error.found
        assert len(str(error)) < 1500
        str(error).encode("utf-8")  # can be printed, whatever the file holds

    @pytest.mark.parametrize(("name", "build"), CASES, ids=IDS)
    def test_the_library_refuses_all_but_what_is_listed(self, name: str, build: Builder) -> None:
        if name in STRICTER:
            safetensors.deserialize(build())
        else:
            with pytest.raises(safetensors.SafetensorError):
                safetensors.deserialize(build())

    def test_ids_are_unique(self) -> None:
        assert len(IDS) == len(set(IDS)) >= 45
        assert set(IDS) >= STRICTER

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("dtype-unknown", ["'a'", "'F33'", "BF16"]),
            ("shape-too-large", ["'a'", "2 bytes", "1 bytes"]),
            ("shape-half-byte", ["'a'", "whole bytes", "3 elements of 4 bits"]),
            ("shape-float", ["'a'", "[1.0]"]),
            ("shape-object", ["'a'", "{'0': 1}"]),
            ("shape-of-entries", ["'a'", "[{'dtype': ..."]),
            ("entry-array", ["'a'", "an object", "['U8', [1], [0, 1]]"]),
            ("metadata-entry", ["__metadata__", "{'dtype': ..."]),
            ("shape-overflow-empty", ["'a'", "2**63", "4611686018427387904"]),
            ("offsets-beyond-data", ["'a'", "outside", "at most 1", "2"]),
            ("key-unknown", ["'a'", "'note'"]),
            ("hole", ["'b'", "hole after tensor 'a'", "from 1", "from 2"]),
            ("overlap", ["'b'", "shares bytes with tensor 'a'"]),
            ("hole-at-start", ["'a'", "the start"]),
            ("duplicate-name", ["'a'", "more than once"]),
            ("trailing-data", ["1 bytes", "2 bytes"]),
            ("truncated-header", ["at least", "20 bytes"]),
            ("length-above-limit", ["100000000", "100000001"]),
            ("metadata-number-inside", ["__metadata__", "'a'", "a string", "1"]),
            ("git-lfs-pointer", ["Git LFS pointer"]),
            ("zip-archive", ["zip archive"]),
            ("lone-surrogate-high", ["\\ud800"]),
        ],
    )
    def test_message_says_what_is_wrong(self, name: str, words: list[str]) -> None:
        with pytest.raises(CheckpointMalformed) as refused:
            parse(dict(CASES)[name]())
        assert [word for word in [WHERE, *words] if word not in str(refused.value)] == []

    def test_names_the_tensor_among_many(self) -> None:
        tensors = {f"t{i}": entry("U8", [1], i, i + 1) for i in range(9)}
        tensors["t5"] = entry("U8", [1, True], 5, 6)
        data = file({"__metadata__": {"format": "pt"}, **tensors}, bytes(9))
        with pytest.raises(CheckpointMalformed, match=r"tensor 't5': its shape is wrong.*\[1, True\]"):
            parse(data)

    def test_one_error_stands_for_many_in_little_time(self) -> None:
        header = '{"a":{"dtype":"U8","shape":[' + "{}," * 500_000 + '{}],"data_offsets":[0,0]}}'
        started = time.process_time()
        with pytest.raises(CheckpointMalformed, match="tensor 'a'"):
            parse(file(header))
        assert time.process_time() - started < 5

    def test_prefix_shorter_than_its_file(self) -> None:
        with pytest.raises(CheckpointMalformed, match="3 bytes"):
            parse_prefix(b"abc", file_size=100, where=WHERE)


class TestGoodFiles:
    DTYPES = (
        np.float64,
        np.float32,
        np.float16,
        np.int64,
        np.uint32,
        np.int16,
        np.uint8,
        np.bool_,
        np.complex64,
    )

    @pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"é": "\n\x00😀", "": ""}])
    def test_as_the_official_writer_leaves_them(
        self, metadata: dict[str, str] | None, tmp_path: Path
    ) -> None:
        tensors: dict[str, np.ndarray] = {
            f"läyer.{i}.{shape}": np.ones(shape, dtype)
            for i, dtype in enumerate(self.DTYPES)
            for shape in ((), (0,), (1,), (3, 5), (2, 0, 7), (1, 1, 1, 2))
        }
        data = safetensors.numpy.save(tensors, metadata=metadata)
        header = parse(data)
        assert_as_the_library(header, data)
        assert header.metadata == (metadata or {})
        path = tmp_path / "a.safetensors"
        path.write_bytes(data)
        with safetensors.safe_open(path, "np") as opened:
            assert (opened.metadata() or {}) == header.metadata

    @pytest.mark.parametrize(
        "header",
        [
            "{}",
            '{"__metadata__":{}}',
            '{"a":' + U8 + ',"__metadata__":{"x":"y"}}',
            '{\n\t"a" :\r\n{ "shape" : [ 1 ] , "data_offsets" : [ 0 , 1 ] , "dtype" : "U8" } }',
            '{"":' + U8 + "}",
            '{"\\u0000":' + U8 + "}",
            '{"\\ud83d\\ude00 \\\\ud800":' + U8 + "}",
            '{"dt\\u0079pe":' + U8.replace("dtype", "dt\\u0079pe").replace("U8", "\\u00558") + "}",
            '{"shape-0":' + U8 + ',"-0]":{"dtype":"U8","shape":[0,10],"data_offsets":[1,1]}}',
            '{"dtype":' + U8 + ',"shape":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}'
            ',"data_offsets":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}',
        ],
    )
    def test_unusual_but_good(self, header: str) -> None:
        data = file(header, bytes('"U8"' in header or "U0" in header or "u0055" in header))
        assert_as_the_library(parse(data), data)

    def test_order_is_that_of_the_data(self) -> None:
        entries = {
            "c": entry("U8", [2], 3, 5),
            "empty-2": entry("U8", [0], 3, 3),
            "a": entry("U8", [3], 0, 3),
            "empty-1": entry("F32", [0, 4], 3, 3),
            "empty-last": entry("U8", [0], 5, 5),
            "empty-0": entry("U8", [0], 0, 0),
        }
        data = file(dict(entries), b"aaacc")
        header = parse(data)
        assert header.names == ["empty-0", "a", "empty-2", "empty-1", "c", "empty-last"]
        assert header.shapes == [(0,), (3,), (0,), (0, 4), (2,), (0,)]
        assert header.begin.tolist() == [0, 0, 3, 3, 3, 5]
        assert header.end.tolist() == [0, 3, 3, 3, 5, 5]
        assert_as_the_library(header, data)

    def test_no_tensors(self) -> None:
        header = parse(file("{}"))
        assert len(header) == 0
        assert header.names == []
        assert header.begin.shape == header.end.shape == (0,)
        assert header.begin.dtype == header.end.dtype == np.int64

    def test_64_kib_of_spaces_are_padding(self) -> None:
        data = file('{"a":' + U8 + "}" + " " * 65536, b"x")
        assert_as_the_library(parse(data), data)

    def test_offsets_above_4_gib(self) -> None:
        raw = json.dumps(
            {"a": entry("BF16", [2**40], 0, 2**41), "b": entry("U8", [], 2**41, 2**41 + 1)}
        ).encode()
        header = parse_header(raw, data_bytes=2**41 + 1, where=WHERE)
        assert header.end.tolist() == [2**41, 2**41 + 1]

    def test_longest_header(self) -> None:
        first8 = MAX_HEADER.to_bytes(8, "little")
        assert parse_prefix(first8, file_size=MAX_HEADER + 8, where=WHERE) == MAX_HEADER
        with pytest.raises(CheckpointMalformed, match="ends inside"):
            parse_prefix(first8, file_size=MAX_HEADER + 7, where=WHERE)

    def test_a_header_crosses_processes(self) -> None:
        header = pickle.loads(pickle.dumps(parse(file({"a": entry("U8", [1], 0, 1)}, b"x"))))
        assert (header.names, header.shapes, header.end.tolist()) == (["a"], [(1,)], [1])

    def test_a_hundred_thousand_tensors(self) -> None:
        entries = [(f"model.layers.{i}.weight", DTYPES["BF16"], (i % 7, 4096)) for i in range(100_000)]
        prefix = build_header(entries, {})
        size = sum(2 * prod(shape) for *_, shape in entries)
        started = time.process_time()
        header = parse_header(prefix[8:], data_bytes=size, where=WHERE)
        assert time.process_time() - started < 5  # 0.3 s on an idle core
        assert header.names == [name for name, *_ in entries]
        assert header.shapes == [shape for *_, shape in entries]
