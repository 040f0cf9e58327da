"""The JSON of a safetensors header, each entry checked at the moment that it is decoded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import prod
from reprlib import Repr
from typing import Any, NoReturn

from plait.errors import CheckpointMalformed
from plait_workers.checkpoint.dtypes import DTYPES, Dtype

MAX_RANK = 64
"""The most dimensions: no tensor library makes more, and it bounds the work on a hostile file."""
_BY_NAME = dict(DTYPES)
_LIMIT = 2**63  # a size in bits that reaches it overflows somebody's int64
_OVERFLOW = "dimensions whose product is below 2**63 bits"
_MINUS_ZERO = re.compile(rb"-0[\s,\]}]")


class _Valid:
    def __repr__(self) -> str:
        return "{'dtype': ..., 'shape': ..., 'data_offsets': ...}"


VALID = _Valid()
"""Stands in the decoded JSON for an object that was a valid entry, and lies in the columns."""


class _Show(Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 200

    def repr_tuple(self, x: tuple[Any, ...], level: int) -> str:
        """A decoded JSON object: a tuple of pairs."""
        if level <= 0:
            return "{...}"
        pairs = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in x[:6]]
        return "{" + ", ".join(pairs + ["..."] * (len(x) > 6)) + "}"


_show = _Show()


def show(value: object) -> str:
    """A decoded JSON value for a message: of bounded length and of printable characters."""
    return _show.repr(value)


class Fault(Exception):
    """What is wrong with an entry; the caller knows its name and its file.

    Args:
        what: the rule that is broken, as the end of "tensor 'a': ...".
        expected: what should have been there.
        found: what was there instead.
    """

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(what)
        self.what, self.expected, self.found = what, expected, found


class Columns:
    """Takes each entry apart as soon as its JSON is read, into columns in the order of the file.

    What the decoder makes for an entry (three tuples and three lists) so dies young. Kept to the
    end, these objects would double the time: the garbage collector walks them again and again.

    Args:
        data_bytes: no entry may end after it.
    """

    def __init__(self, data_bytes: int) -> None:
        self.data_bytes = data_bytes
        self.dtypes: list[Dtype] = []
        self.shapes: list[tuple[int, ...]] = []
        self.offsets: list[int] = []  # begin and end by turns
        self._seen: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._odd = 0  # objects that were no entries

    def hook(self, pairs: list[tuple[str, Any]]) -> object:
        """``VALID`` for a valid entry, else the pairs as a tuple, which no JSON array becomes.

        The decoder tells no names. What is not an entry is the metadata, the whole header, or a
        fault; who knows the name calls ``take`` again to learn which.
        """
        if self._odd < 2:  # beside metadata and the whole, a fault is now sure: do not pay for more
            try:
                self.take(pairs)
            except Fault:
                self._odd += 1
            else:
                return VALID
        return tuple(pairs)

    def take(self, pairs: Sequence[tuple[str, Any]]) -> None:
        """Append one entry; raises Fault, leaving the columns as they were, if it breaks a rule."""
        # Written for speed: this runs 100,000 times for a large model. Types are compared with
        # `is` because true and 1.0 equal 1 in Python.
        name, shape, offsets = _fields(pairs)
        try:
            dtype = _BY_NAME[name]
        except (KeyError, TypeError):
            raise Fault("its dtype is unknown", f"one of {', '.join(DTYPES)}", show(name)) from None
        if type(shape) is not list or len(shape) > MAX_RANK:
            raise _wrong_shape(shape)
        count = 1
        for size in shape:
            if type(size) is not int or not 0 <= size < _LIMIT:
                raise _wrong_shape(shape)
            count *= size
        if type(offsets) is not list or len(offsets) != 2:
            raise _wrong_offsets(offsets)
        begin, end = offsets
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
            raise _wrong_offsets(offsets)
        if end > self.data_bytes:
            raise Fault("it ends outside of the file", f"an end of at most {self.data_bytes}", show(end))
        if count * dtype.bits != 8 * (end - begin):
            raise _wrong_size(dtype, shape, count, end - begin)
        if not count and overflows(dtype, shape):
            raise Fault("its shape overflows", _OVERFLOW, show(shape))
        key = tuple(shape)
        self.dtypes.append(dtype)
        self.shapes.append(self._seen.setdefault(key, key))
        self.offsets.extend(offsets)


def _fields(pairs: Sequence[tuple[str, Any]]) -> tuple[Any, Any, Any]:
    """The values of the three keys, in any order, each there once and no other key."""
    if len(pairs) == 3:
        (first, name), (second, shape), (third, offsets) = pairs
        if first == "dtype" and second == "shape" and third == "data_offsets":
            return name, shape, offsets  # the order of official writers
        fields = dict(pairs)
        if fields.keys() == {"dtype", "shape", "data_offsets"}:
            return fields["dtype"], fields["shape"], fields["data_offsets"]
    found = show([key for key, _ in pairs[:8]])
    raise Fault("its keys are wrong", "dtype, shape and data_offsets, each once", found)


def overflows(dtype: Dtype, shape: Sequence[int]) -> bool:
    """Whether the size in bits reaches 2**63, with every dimension of zero left out.

    They are left out because a reader may multiply the others first.
    """
    return prod(size for size in shape if size) * dtype.bits >= _LIMIT


def _wrong_shape(shape: object) -> Fault:
    expected = f"a list of at most {MAX_RANK} integers from 0 to 2**63 - 1"
    return Fault("its shape is wrong", expected, show(shape))


def _wrong_offsets(offsets: object) -> Fault:
    expected = "[begin, end], integers with 0 <= begin <= end"
    return Fault("its data_offsets are wrong", expected, show(offsets))


def _wrong_size(dtype: Dtype, shape: list[int], count: int, span: int) -> Fault:
    what, found = "its data_offsets do not match its shape and dtype", f"{span} bytes"
    if count * dtype.bits >= _LIMIT:  # too long a number to show
        return Fault("its shape overflows", _OVERFLOW, show(shape))
    try:
        return Fault(what, f"{dtype.nbytes(count)} bytes", found)
    except ValueError:
        return Fault(what, "whole bytes", f"{count} elements of {dtype.bits} bits")


def decode(raw: bytes, columns: Columns, where: str) -> Sequence[tuple[str, Any]]:
    """The top object's pairs; what was a valid entry is ``VALID`` here and lies in the columns.

    Raises CheckpointMalformed, and nothing else, for what is no JSON object with spaces after it.
    """
    body = raw.rstrip(b" ")
    if not body.startswith(b"{"):
        refuse(where, "the header begins wrongly", expected="'{'", found=show(raw[:8]))
    if not body.endswith(b"}"):
        refuse(where, "the header ends wrongly", expected="'}', then spaces only", found=show(body[-8:]))
    # Python reads -0 as 0, the library refuses it. The slow check runs only where it may matter.
    parse_int = _parse_int if _MINUS_ZERO.search(body) else None
    try:
        top = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=columns.hook,
            parse_int=parse_int,
            parse_constant=_parse_constant,
        )
    except RecursionError:
        refuse(where, "the header nests too deeply", expected="three levels", found="hundreds")
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError among them
        refuse(where, "the header is not valid JSON", expected="JSON in UTF-8", found=str(error))
    if top is VALID:
        refuse(where, "the header is a single entry", expected="entries by name", found="no name")
    pairs: tuple[tuple[str, Any], ...] = top
    return pairs


def refuse(where: str, what: str, *, expected: str, found: str, hint: str | None = None) -> NoReturn:
    """Raises CheckpointMalformed for a broken rule of the file ``where``."""
    doing = f"cannot read the safetensors header: {what}"
    raise CheckpointMalformed(doing, where=where, expected=expected, found=found, hint=hint)


def _parse_int(text: str) -> int:
    if text == "-0":
        raise ValueError("-0, which is no integer of the format")
    return int(text)


def _parse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text}, which is not JSON")
