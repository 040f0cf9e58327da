"""Reads whole files with our parser, and compares it with the library."""

from __future__ import annotations

import safetensors

from plait_workers.checkpoint.header import Header, parse_header, parse_prefix

WHERE = "/models/a/model.safetensors"


def parse(data: bytes) -> Header:
    length = parse_prefix(data[:8], file_size=len(data), where=WHERE)
    return parse_header(data[8 : 8 + length], data_bytes=len(data) - 8 - length, where=WHERE)


def assert_as_the_library(header: Header, data: bytes) -> None:
    """The same tensors, types, shapes and bytes as the library finds in the whole file."""
    start = 8 + int.from_bytes(data[:8], "little")
    ours = {
        name: (header.dtypes[i].name, list(header.shapes[i]), data[start + begin : start + end])
        for i, (name, begin, end) in enumerate(zip(header.names, header.begin, header.end, strict=True))
    }
    theirs = {
        name: (found["dtype"], found["shape"], bytes(found["data"]))
        for name, found in safetensors.deserialize(data)
    }
    assert ours == theirs
    assert len(ours) == len(header)
