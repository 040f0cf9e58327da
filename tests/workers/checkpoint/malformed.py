"""Files that break the safetensors format, each in one way.

``CASES`` is a list of (id, function that makes the file's bytes). ``STRICTER`` holds the ids that
the safetensors library 0.8.0 lets pass; it refuses all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable

U8 = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
Builder = Callable[[], bytes]


def file(header: bytes | str | dict[str, object], data: bytes = b"") -> bytes:
    """A file of this header and data, with the right length in front, right or not otherwise."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header if isinstance(header, bytes) else header.encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: object, shape: object, *offsets: object) -> dict[str, object]:
    """One tensor's entry."""
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def text(header: str | bytes, size: int = 1) -> Builder:
    """A file of a literal header, with ``size`` bytes of data."""
    return lambda: file(header, bytes(size))


def one(value: object, size: int = 1) -> Builder:
    """A file whose only tensor has this entry."""
    return lambda: file({"a": value}, bytes(size))


def many(size: int, **tensors: object) -> Builder:
    """A file of several entries."""
    return lambda: file(dict(tensors), bytes(size))


LENGTHS: list[tuple[str, Builder]] = [
    ("empty-file", lambda: b""),
    ("seven-bytes", lambda: bytes(7)),
    ("eight-bytes", lambda: (2).to_bytes(8, "little")),
    ("length-zero", lambda: bytes(8)),
    ("length-one", lambda: file("{")),
    ("length-beyond-file", lambda: (3).to_bytes(8, "little") + b"{}"),
    ("length-above-limit", lambda: (100_000_001).to_bytes(8, "little") + b"{}"),
    ("length-all-ones", lambda: b"\xff" * 8 + b"{}"),
    ("length-big-endian", lambda: (2).to_bytes(8, "big") + b"{}"),
    ("length-cuts-json", lambda: (10).to_bytes(8, "little") + file({"a": entry("U8", [1], 0, 1)}, b"a")[8:]),
    ("length-takes-data", lambda: (4).to_bytes(8, "little") + b"{}ab"),
    ("truncated-header", lambda: file({"a": entry("U8", [1], 0, 1)})[:20]),
    ("truncated-data", lambda: file({"a": entry("U8", [4], 0, 4)}, bytes(3))),
    ("git-lfs-pointer", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ("zip-archive", lambda: b"PK\x03\x04" + bytes(60)),
    ("gguf", lambda: b"GGUF\x03\0\0\0" + bytes(60)),
    ("html-page", lambda: b"<!DOCTYPE html><html><body>401</body></html>"),
]

JSON: list[tuple[str, Builder]] = [
    ("only-spaces", text("    ", 0)),
    ("json-array", text("[]", 0)),
    ("json-string", text('"a"', 0)),
    ("json-null", text("null", 0)),
    ("json-cut", text('{"a":{"dtype":"U8"', 0)),
    ("json-comma-last", text('{"a":' + U8 + ",}")),
    ("json-single-quotes", text("{'a':" + U8 + "}")),
    ("json-comment", text('{/* */"a":' + U8 + "}")),
    ("json-two-objects", text("{}{}", 0)),
    ("byte-order-mark", text(b"\xef\xbb\xbf{}", 0)),
    ("utf-16", text("{}".encode("utf-16-le"), 0)),
    ("leading-space", text(" {}", 0)),
    ("leading-newline", text("\n{}", 0)),
    ("trailing-newline", text("{}\n", 0)),
    ("trailing-tab", text("{} \t ", 0)),
    ("trailing-nul", text("{}\0\0", 0)),
    ("trailing-text", text("{} x", 0)),
    ("trailing-text-and-brace", text("{} x}", 0)),
    ("utf-8-invalid", text(b'{"\xff":' + U8.encode() + b"}")),
    ("utf-8-overlong", text(b'{"\xc0\xaf":' + U8.encode() + b"}")),
    ("utf-8-surrogate", text(b'{"\xed\xa0\x80":' + U8.encode() + b"}")),
    ("control-character", text('{"a\x01":' + U8 + "}")),
    ("bad-escape", text('{"\\x41":' + U8 + "}")),
    ("lone-surrogate-high", text('{"\\ud800":' + U8 + "}")),
    ("lone-surrogate-low", text('{"\\udc00":' + U8 + "}")),
    ("surrogates-swapped", text('{"\\ude00\\ud83d":' + U8 + "}")),
    ("lone-surrogate-dtype", text('{"a":' + U8.replace("U8", "\\ud800") + "}")),
    ("nan", text('{"a":' + U8.replace("[1]", "[NaN]") + "}")),
    ("infinity", text('{"a":' + U8.replace("[1]", "[Infinity]") + "}")),
    ("minus-infinity", text('{"__metadata__":-Infinity}', 0)),
    ("depth-bomb-arrays", text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", 0)),
    ("depth-bomb-objects", text('{"a":' * 100_000 + "1" + "}" * 100_000, 0)),
    ("depth-bomb-open", text("{" + "[" * 100_000 + "}", 0)),
    ("long-integer", text('{"a":' + U8.replace("[1]", "[" + "9" * 5000 + "]") + "}")),
]

NAMES: list[tuple[str, Builder]] = [
    ("duplicate-name", text('{"a":' + U8 + ',"a":' + U8 + "}")),
    ("duplicate-name-escaped", text('{"a":' + U8 + ',"\\u0061":' + U8 + "}")),
    ("duplicate-name-other-span", text('{"a":' + U8 + ',"a":' + U8.replace("0,1", "1,2") + "}", 2)),
    ("entry-null", one(None, 0)),
    ("entry-string", one("U8", 0)),
    ("entry-number", one(1, 0)),
    ("entry-empty", one({}, 0)),
    ("entry-array", one(["U8", [1], [0, 1]])),
    ("entry-array-of-pairs", one([["dtype", "U8"], ["shape", [1]], ["data_offsets", [0, 1]]])),
    ("entry-in-entry", one({"a": entry("U8", [1], 0, 1)})),
    ("entry-in-array", one([entry("U8", [1], 0, 1)])),
    ("entry-without-name", text(U8)),
    ("key-missing-dtype", one({"shape": [1], "data_offsets": [0, 1]})),
    ("key-missing-shape", one({"dtype": "U8", "data_offsets": [0, 1]})),
    ("key-missing-offsets", one({"dtype": "U8", "shape": [1]})),
    ("key-unknown", one(entry("U8", [1], 0, 1) | {"note": "x"})),
    ("key-unknown-for-known", one({"dtype": "U8", "shape": [1], "offsets": [0, 1]})),
    ("key-upper-case", one({"DTYPE": "U8", "shape": [1], "data_offsets": [0, 1]})),
    ("key-duplicate", text('{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}')),
    ("key-duplicate-for-missing", text('{"a":{"dtype":"U8","dtype":"U8","shape":[1]}}')),
]

DTYPES: list[tuple[str, Builder]] = [
    ("dtype-unknown", one(entry("F33", [1], 0, 1))),
    ("dtype-lower-case", one(entry("u8", [1], 0, 1))),
    ("dtype-empty", one(entry("", [1], 0, 1))),
    ("dtype-null", one(entry(None, [1], 0, 1))),
    ("dtype-number", one(entry(8, [1], 0, 1))),
    ("dtype-list", one(entry(["U8"], [1], 0, 1))),
    ("dtype-object", one(entry({"U8": None}, [1], 0, 1))),
    ("dtype-wide", one(entry("F128", [1], 0, 16), 16)),
]

SHAPES: list[tuple[str, Builder]] = [
    ("shape-null", one(entry("U8", None, 0, 1))),
    ("shape-number", one(entry("U8", 1, 0, 1))),
    ("shape-string", one(entry("U8", "1", 0, 1))),
    ("shape-object", one(entry("U8", {"0": 1}, 0, 1))),
    ("shape-of-strings", one(entry("U8", ["1"], 0, 1))),
    ("shape-of-lists", one(entry("U8", [[1]], 0, 1))),
    ("shape-of-entries", one(entry("U8", [entry("U8", [1], 0, 1)], 0, 1))),
    ("shape-bool", one(entry("U8", [True], 0, 1))),
    ("shape-float", one(entry("U8", [1.0], 0, 1))),
    ("shape-exponent", text('{"a":' + U8.replace("[1]", "[1e0]") + "}")),
    ("shape-null-inside", one(entry("U8", [None], 0, 1))),
    ("shape-negative", one(entry("U8", [-1], 0, 1))),
    ("shape-two-negatives", one(entry("U8", [-1, -1], 0, 1))),
    ("shape-minus-zero", text('{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', 0)),
    ("shape-leading-zero", text('{"a":' + U8.replace("[1]", "[01]") + "}")),
    ("shape-too-large", one(entry("U8", [2], 0, 1))),
    ("shape-too-small", one(entry("U8", [1], 0, 2), 2)),
    ("shape-scalar-of-two", one(entry("U8", [], 0, 2), 2)),
    ("shape-overflow-32", one(entry("U8", [2**32, 2**32], 0, 0), 0)),
    ("shape-overflow-64", one(entry("U8", [2**64 + 1], 0, 1))),
    ("shape-overflow-63", one(entry("U8", [2**63], 0, 1))),
    ("shape-overflow-bits", one(entry("F64", [2**58], 0, 0), 0)),
    ("shape-overflow-empty", one(entry("U8", [0, 2**62, 4], 0, 0), 0)),
    ("shape-rank-65", one(entry("U8", [1] * 65, 0, 1))),
    ("shape-rank-100000", one(entry("U8", [2**62] * 100_000, 0, 1))),
    ("shape-half-byte", one(entry("F4", [3], 0, 2), 2)),
    ("shape-three-quarters", one(entry("F6_E2M3", [1], 0, 1))),
]

OFFSETS: list[tuple[str, Builder]] = [
    ("offsets-null", one({"dtype": "U8", "shape": [1], "data_offsets": None})),
    ("offsets-string", one({"dtype": "U8", "shape": [1], "data_offsets": "01"})),
    ("offsets-object", one({"dtype": "U8", "shape": [1], "data_offsets": {"0": 0, "1": 1}})),
    ("offsets-none", one(entry("U8", [1]))),
    ("offsets-one", one(entry("U8", [1], 0))),
    ("offsets-three", one(entry("U8", [1], 0, 1, 1))),
    ("offsets-float", one(entry("U8", [1], 0.0, 1))),
    ("offsets-bool", one(entry("U8", [1], False, True))),
    ("offsets-of-strings", one(entry("U8", [1], "0", "1"))),
    ("offsets-negative", one(entry("U8", [1], -1, 0))),
    ("offsets-minus-zero", text('{"a":' + U8.replace("[0,", "[-0,") + "}")),
    ("offsets-reversed", one(entry("U8", [1], 1, 0))),
    ("offsets-overflow", one(entry("U8", [1], 2**64, 2**64 + 1))),
    ("offsets-beyond-data", one(entry("U8", [2], 0, 2))),
    ("hole-at-start", one(entry("U8", [1], 1, 2), 2)),
    ("hole", many(3, a=entry("U8", [1], 0, 1), b=entry("U8", [1], 2, 3))),
    ("hole-out-of-order", many(3, b=entry("U8", [1], 2, 3), a=entry("U8", [1], 0, 1))),
    ("overlap", many(3, a=entry("U8", [2], 0, 2), b=entry("U8", [2], 1, 3))),
    ("shared", many(1, a=entry("U8", [1], 0, 1), b=entry("U8", [1], 0, 1))),
    ("contained", many(3, a=entry("U8", [3], 0, 3), b=entry("U8", [1], 1, 2))),
    ("empty-inside-another", many(2, a=entry("U8", [2], 0, 2), b=entry("U8", [0], 1, 1))),
    ("empty-beyond-data", many(1, a=entry("U8", [1], 0, 1), b=entry("U8", [0], 2, 2))),
    ("trailing-data", many(2, a=entry("U8", [1], 0, 1))),
    ("data-without-tensors", text("{}", 1)),
]

METADATA: list[tuple[str, Builder]] = [
    ("metadata-null", text('{"__metadata__":null}', 0)),
    ("metadata-list", text('{"__metadata__":[]}', 0)),
    ("metadata-string", text('{"__metadata__":"pt"}', 0)),
    ("metadata-number-inside", text('{"__metadata__":{"a":1}}', 0)),
    ("metadata-null-inside", text('{"__metadata__":{"a":null}}', 0)),
    ("metadata-object-inside", text('{"__metadata__":{"a":{}}}', 0)),
    ("metadata-entry", text('{"__metadata__":' + U8 + "}")),
    ("metadata-entry-inside", text('{"__metadata__":{"a":' + U8 + "}}")),
    ("metadata-twice", text('{"__metadata__":{},"__metadata__":{}}', 0)),
    ("metadata-key-twice", text('{"__metadata__":{"a":"1","a":"2"}}', 0)),
    ("metadata-surrogate-key", text('{"__metadata__":{"\\ud800":"1"}}', 0)),
    ("metadata-surrogate-value", text('{"__metadata__":{"a":"\\udfff"}}', 0)),
]

CASES: list[tuple[str, Builder]] = [*LENGTHS, *JSON, *NAMES, *DTYPES, *SHAPES, *OFFSETS, *METADATA]

STRICTER = {
    "leading-space",
    "leading-newline",
    "trailing-newline",
    "trailing-tab",
    "duplicate-name",
    "duplicate-name-escaped",
    "entry-array",
    "key-unknown",
    "dtype-object",
    "shape-overflow-empty",
    "shape-rank-65",
    "metadata-null",
    "metadata-key-twice",
}
