"""Conversion between float formats, on bits: round to nearest even, subnormals kept.

Overflow becomes infinity (NaN where the format has none) and a NaN becomes its sign with the
canonical quiet NaN. Widening is exact. One rounding only: a double goes to bfloat16 directly, never
by way of float32. The loops are in ``native/encode.h``.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np

from plait_workers.kernels.native import AnyArray, F64Array, Pointer, address, check_lengths, kernel

# Codes by which kernels branch, once a tile.
F64, F32, F16, BF16, F8 = 0, 1, 2, 3, 4
CODES: Final = {"F64": F64, "F32": F32, "F16": F16, "BF16": BF16}

# What a narrow format is made of: exponent bits, mantissa bits, canonical NaN, first pattern that is
# too large, what stands for it, and whether a zero keeps its sign.
NARROW: Final = {
    "F16": (5, 10, 0x7E00, 0x7C00, 0x7C00, 1),
    "BF16": (8, 7, 0x7FC0, 0x7F80, 0x7F80, 1),
    "F8_E5M2": (5, 2, 0x7E, 0x7C, 0x7C, 1),
    "F8_E4M3": (4, 3, 0x7F, 0x7F, 0x7F, 1),
    "F8_E5M2FNUZ": (5, 2, 0x80, 0x80, 0x80, 0),
    "F8_E4M3FNUZ": (4, 3, 0x80, 0x80, 0x80, 0),
}
"""Formats that a float32 or a double can be rounded to, besides F32 and F64."""


class NarrowFormat(ctypes.Structure):
    """``narrow_format`` of the kernels."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("exponent_bits", "mantissa_bits", "nan", "too_large", "overflow", "signed_zero")
    )


def narrow_format(name: str) -> NarrowFormat:
    """The numbers of :data:`NARROW`; zeros for the other formats."""
    return NarrowFormat(*NARROW.get(name, (0,) * 6))


def narrow(x: float, name: str) -> int:
    """A double as a narrow format's bit pattern, by one rounding."""
    function = kernel("narrow")
    function.restype = ctypes.c_uint64
    bits: int = function(ctypes.c_double(x), ctypes.byref(narrow_format(name)))
    return bits


_NO_TABLE = np.zeros(0, np.float64)


def table_of(name: str) -> F64Array:
    """(256,) values of an 8-bit float format by bit pattern; empty for every other format."""
    if not name.startswith("F8_"):
        return _NO_TABLE
    if name == "F8_E8M0":
        powers = np.ldexp(1.0, np.arange(256) - 127)
        powers[255] = np.nan
        return powers
    exponent_bits, mantissa_bits, nan, _end, _over, signed = NARROW[name]
    values = np.empty(256, np.float64)
    for pattern in range(256):
        sign = -1.0 if pattern >> 7 else 1.0
        exponent = (pattern & 0x7F) >> mantissa_bits
        mantissa = pattern & ((1 << mantissa_bits) - 1)
        bias = (1 << (exponent_bits - 1)) - signed
        scale = max(exponent, 1) - bias - mantissa_bits
        values[pattern] = sign * np.ldexp(mantissa + (bool(exponent) << mantissa_bits), scale)
    if name == "F8_E5M2":
        values[[0x7C, 0xFC]] = np.inf, -np.inf
        values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    elif signed:
        values[[nan, nan | 0x80]] = np.nan
    else:
        values[0x80] = np.nan
    return values


def convert(source: AnyArray, source_name: str, out: AnyArray, out_name: str) -> None:
    """Convert between F16, BF16, F32 and F64 by the rules at the top of this module.

    Args:
        source: (n,) bit patterns in the format ``source_name``.
        out: (n,) place for bit patterns in the format ``out_name``.
    """
    check_lengths(len(source), source, out)
    if source_name == out_name:
        np.copyto(out, source)
        return
    kernel("convert")(
        Pointer(address(source)),
        CODES[source_name],
        Pointer(address(out)),
        CODES[out_name],
        ctypes.c_size_t(len(source)),
        ctypes.byref(narrow_format(out_name)),
    )
