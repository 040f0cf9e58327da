"""The header of a safetensors file: a strict parser and a writer.

A file is 8 bytes of little-endian N, N bytes of JSON, then the tensors' data without a gap. The
library has no partial or remote API, so both sides are ours. Where the library lets something
pass that two readers could take in two ways, this parser refuses it. Accepted by the library and
refused here: white space before ``{`` (the format says that a header begins with ``{``, and the
ninth byte is how a file is told from other formats); padding other than spaces; duplicate names,
also inside ``__metadata__``; unknown keys of a tensor; ``null`` metadata; a tensor written as an
array or its dtype as an object; more than 64 dimensions; and a size that overflows, also where
another dimension is zero. Nothing is accepted here that the library refuses.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.checkpoint.entries import MAX_RANK, VALID, Columns, Fault, decode, overflows, refuse, show

MAX_HEADER = 100_000_000
"""The longest header, in bytes, that the format allows."""
METADATA = "__metadata__"
"""The one name that is not a tensor's."""

# What often lies under the name of a safetensors file; read as a length it is far too large.
_OTHERS = {
    b"version ": "This is a Git LFS pointer: fetch the file that it stands for",
    b"PK\x03\x04": "This is a zip archive, perhaps a PyTorch pickle: convert it to safetensors",
    b"GGUF": "This is a GGUF file: convert it to safetensors",
}


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """The tensors of one file as columns of one length, in the order of their data.

    Empty tensors lie before the tensor that begins at their offset, in the order of the file.
    Costs about 60 bytes a tensor beside its name; equal shapes of a file are one object, and
    equal names are one object in the whole process.

    Args:
        names: unique; none is ``__metadata__``.
        dtypes: element types, objects of ``DTYPES``.
        shapes: dimensions; ``()`` for a scalar.
        begin: first byte of each tensor, from the start of the data.
        end: the byte after its last; ``begin[i] == end[i - 1]``.
        metadata: the file's own strings.
    """

    names: list[str]
    dtypes: list[Dtype]
    shapes: list[tuple[int, ...]]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    metadata: dict[str, str]

    def __len__(self) -> int:
        return len(self.names)


def parse_prefix(first8: bytes, *, file_size: int, where: str) -> int:
    """The header's length N: at least 2, at most ``MAX_HEADER``, and inside the file.

    Raises CheckpointMalformed, whatever the bytes, and nothing else. Takes constant time.

    Args:
        first8: the file's first 8 bytes, or all of a shorter file.
        file_size: the size of the whole file.
        where: the file's name, for errors.
    """
    if file_size < 8 or len(first8) < 8:
        found = f"{min(file_size, len(first8))} bytes"
        refuse(where, "the file is too short", expected="8 bytes of header length", found=found)
    length = int.from_bytes(first8[:8], "little")
    found = f"{length} bytes"
    hint = next((text for magic, text in _OTHERS.items() if first8.startswith(magic)), None)
    if length > MAX_HEADER:
        expected = f"at most {MAX_HEADER} bytes"
        refuse(where, "the header is too long", expected=expected, found=found, hint=hint)
    if length < 2:
        refuse(where, "the header is too short", expected="at least 2 bytes", found=found)
    if 8 + length > file_size:
        expected = f"a file of at least {8 + length} bytes, as its first 8 say"
        found = f"{file_size} bytes"
        refuse(where, "the file ends inside its header", expected=expected, found=found, hint=hint)
    return length


def parse_header(raw: bytes, *, data_bytes: int, where: str) -> Header:
    """The tensors of a header that describes exactly ``data_bytes`` bytes of data.

    They lie one after another from 0 to ``data_bytes``, each as long as its shape and type say.
    Raises CheckpointMalformed, whatever the bytes, and nothing else. Costs about 3 us and, while
    it runs, 500 bytes a tensor. A file made to exhaust memory can cost 30 times its header.

    Args:
        raw: the N bytes of JSON.
        data_bytes: the size of the file less 8 + N.
        where: the file's name, for errors.
    """
    columns = Columns(data_bytes)
    names, metadata = _split(decode(raw, columns, where), columns, where)
    if b"\\" in raw:  # only an escape can make what UTF-8 cannot say: half of a surrogate pair
        _check_text([*names, *metadata, *metadata.values()], where)
    begin, end = np.array(columns.offsets, dtype=np.int64).reshape(-1, 2).T.copy()
    header = Header(names, columns.dtypes, columns.shapes, begin, end, metadata)
    if not _contiguous(header):  # as official writers leave it; else it may be out of order
        header = _sorted(header)
        _check_layout(header, where)
    used = int(header.end[-1]) if names else 0
    if used != data_bytes:
        expected, found = f"{used} bytes of data", f"{data_bytes} bytes"
        refuse(where, "data follows the last tensor", expected=expected, found=found)
    return header


def build_header(entries: Sequence[tuple[str, Dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """All bytes of a file before its data; equal arguments give equal bytes.

    Tensors lie in the order given, without gaps, from a multiple of 8 bytes on. The library and
    ``parse_header`` accept the result. Raises ValueError for entries that no file can hold: a
    duplicate or reserved name, a string that is not UTF-8, a shape that does not fill whole bytes,
    a header above ``MAX_HEADER``. Costs about 4 us a tensor.

    Args:
        entries: name, type and shape of each tensor. Who wants every tensor aligned to its own
            type puts wide types first: nothing is inserted between tensors.
        metadata: strings to keep in the file; written by sorted key, and not at all if empty.
    """
    table: dict[str, object] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    begin = 0
    for name, dtype, shape in entries:
        if name in table or name == METADATA:
            raise ValueError(f"the name {show(name)} is reserved or occurs twice")
        if len(shape) > MAX_RANK or any(size < 0 for size in shape) or overflows(dtype, shape):
            raise ValueError(f"the format has no tensor of shape {show([*shape])}")
        end = begin + dtype.nbytes(prod(shape))
        table[name] = {"dtype": dtype.name, "shape": shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"a header of {len(text)} bytes is above the format's limit of {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text


def _split(top: Sequence[tuple[str, Any]], columns: Columns, where: str) -> tuple[list[str], dict[str, str]]:
    """Names in the order of the columns, and the metadata; refuses what is neither."""
    names: list[str] = []
    metadata: dict[str, str] | None = None
    for name, value in top:
        if value is VALID and name != METADATA:
            names.append(sys.intern(name))
        elif name != METADATA:
            _refuse_entry(name, value, columns, where)
        elif metadata is None:
            metadata = _metadata(value, where)
        else:
            refuse(where, f"{METADATA} is there more than once", expected="one", found="two")
    if len(set(names)) != len(names):
        name, times = Counter(names).most_common(1)[0]
        refuse(where, f"tensor {show(name)} is there more than once", expected="one", found=str(times))
    return names, metadata or {}


def _metadata(value: Any, where: str) -> dict[str, str]:
    what = f"{METADATA} is wrong"
    if type(value) is not tuple:  # pairs, as the hook leaves an object that is no entry
        refuse(where, what, expected="an object of strings", found=show(value))
    for key, text in value:
        if type(text) is not str:
            refuse(where, f"{what} at {show(key)}", expected="a string", found=show(text))
    metadata: dict[str, str] = dict(value)
    if len(metadata) != len(value):
        key, times = Counter(key for key, _ in value).most_common(1)[0]
        refuse(where, f"{what}: key {show(key)} is there more than once", expected="one", found=str(times))
    return metadata


def _refuse_entry(name: str, value: Any, columns: Columns, where: str) -> NoReturn:
    fault = Fault("its entry is wrong", "an object", show(value))
    if type(value) is tuple:
        try:
            columns.take(value)
        except Fault as known:
            fault = known
    refuse(where, f"tensor {show(name)}: {fault.what}", expected=fault.expected, found=fault.found)


def _check_text(texts: Sequence[str], where: str) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            refuse(where, "a name or a metadata string is not text", expected="Unicode", found=show(text))


def _contiguous(header: Header) -> bool:
    begin, end = header.begin, header.end
    return len(header) == 0 or bool(begin[0] == 0 and np.array_equal(begin[1:], end[:-1]))


def _sorted(header: Header) -> Header:
    order = np.lexsort((header.end, header.begin))  # stable: ties keep the order of the file
    names, dtypes, shapes = (
        [column[i] for i in order.tolist()] for column in (header.names, header.dtypes, header.shapes)
    )
    return Header(names, dtypes, shapes, header.begin[order], header.end[order], header.metadata)


def _check_layout(header: Header, where: str) -> None:
    """Refuses the first tensor that does not begin where the one before it ends."""
    due = np.concatenate(([0], header.end[:-1]))
    wrong = np.flatnonzero(header.begin != due)
    if not wrong.size:
        return
    i = int(wrong[0])
    before = f"tensor {show(header.names[i - 1])}" if i else "the start"
    what = "shares bytes with" if header.begin[i] < due[i] else "leaves a hole after"
    refuse(
        where,
        f"tensor {show(header.names[i])}: it {what} {before}",
        expected=f"data from {due[i]}",
        found=f"data from {header.begin[i]}",
    )
