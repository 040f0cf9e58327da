"""Conversion between float formats, on bits: round to nearest even, subnormals kept.

Overflow becomes infinity (NaN where the format has none) and a NaN becomes its sign with the
canonical quiet NaN. Widening is exact. One rounding only: a double goes to bfloat16 directly, never
by way of float32.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from plait_workers.kernels.compiled import (
    AnyArray,
    F64Array,
    Number,
    as_f32,
    as_f64,
    as_u32,
    as_u64,
    compiled,
    inlined,
)

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

_U16 = np.uint16
_U32 = np.uint32
_U64 = np.uint64


@inlined
def bf16_to_f32(x: Number) -> Number:
    return as_f32(_U32(_U32(x) << _U32(16)))


@inlined
def f16_to_f32(x: Number) -> Number:
    digits = _U32(_U32(x & 0x7FFF) << _U32(13))
    exponent = digits & _U32(0x0F800000)
    digits = _U32(digits + _U32(112 << 23))
    if exponent == _U32(0x0F800000):  # infinity and NaN
        digits = _U32(digits + _U32(112 << 23))
    elif exponent == _U32(0):  # zero and subnormals: let the subtraction normalise
        digits = as_u32(np.float32(as_f32(_U32(digits + _U32(1 << 23))) - as_f32(_U32(113 << 23))))
    return as_f32(_U32(digits | _U32(_U32(x & 0x8000) << _U32(16))))


@inlined
def f32_to_bf16(x: Number) -> Number:
    bits = as_u32(x)
    rounded = (bits + _U32(0x7FFF) + ((bits >> _U32(16)) & _U32(1))) >> _U32(16)
    nan = ((bits >> _U32(16)) & _U32(0x8000)) | _U32(0x7FC0)
    return _U16(nan if (bits & _U32(0x7FFFFFFF)) > _U32(0x7F800000) else rounded)


@inlined
def f32_to_f16(x: Number) -> Number:
    bits = as_u32(x)
    sign = (bits >> _U32(16)) & _U32(0x8000)
    digits = bits & _U32(0x7FFFFFFF)
    # Below the smallest normal: adding 0.5 lets the addition itself round to the subnormal step.
    small = as_u32(np.float32(as_f32(digits) + np.float32(0.5))) - _U32(0x3F000000)
    normal = (digits - _U32(112 << 23) + _U32(0xFFF) + ((digits >> _U32(13)) & _U32(1))) >> _U32(13)
    result = small if digits < _U32(113 << 23) else normal
    result = _U32(0x7C00) if digits >= _U32(0x47800000) else result
    result = _U32(0x7E00) if digits > _U32(0x7F800000) else result
    return _U16(result | sign)


@inlined
def f64_to_f32(x: Number) -> Number:
    bits = as_u64(x)
    if (bits & _U64(0x7FFFFFFFFFFFFFFF)) > _U64(0x7FF0000000000000):
        return as_f32(_U32(((bits >> _U64(32)) & _U64(0x80000000)) | _U64(0x7FC00000)))
    return np.float32(x)


@compiled
def narrow(
    x: Number,
    exponent_bits: Number,
    mantissa_bits: Number,
    nan: Number,
    end: Number,
    over: Number,
    signed: Number,
) -> Number:
    """A double as a narrow format's bit pattern, by one rounding. The numbers are :data:`NARROW`'s."""
    bits = np.int64(as_u64(x) & _U64(0x7FFFFFFFFFFFFFFF))
    sign = np.int64(as_u64(x) >> _U64(63)) << (exponent_bits + mantissa_bits)
    if bits > 0x7FF0000000000000:
        return nan | sign
    # Formats without negative zero also have one more step of bias.
    exponent = (bits >> 52) - 1023 + (1 << (exponent_bits - 1)) - signed
    shift = 52 - mantissa_bits
    if exponent <= 0:
        shift += 1 - exponent
        exponent = 1
    if shift > 54:
        return sign if signed else 0
    digits = (bits & ((1 << 52) - 1)) | (1 << 52)
    kept = digits >> shift
    rest = digits & ((np.int64(1) << shift) - 1)
    half = np.int64(1) << (shift - 1)
    if rest > half or (rest == half and kept & 1):
        kept += 1
    result = ((exponent - 1) << mantissa_bits) + kept
    if result >= end:
        return over | sign
    return result | sign if result or signed else 0


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


@compiled
def convert_bits(
    source: AnyArray, source_code: Number, out: AnyArray, out_code: Number, n: Number, target: AnyArray
) -> None:
    """Convert n bit patterns from one of F16, BF16, F32, F64 to another of them.

    Args:
        source, out: bit patterns, in unsigned integers of each format's width.
        source_code, out_code: one of the codes of this module.
        target: the six numbers of :data:`NARROW` for the output's format, or zeros.
    """
    for j in range(n):
        if source_code == F64:
            x = as_f64(_U64(source[j]))
        elif source_code == F32:
            x = np.float64(as_f32(_U32(source[j])))
        elif source_code == BF16:
            x = np.float64(bf16_to_f32(source[j]))
        else:
            x = np.float64(f16_to_f32(source[j]))
        if out_code == F32:
            out[j] = as_u32(f64_to_f32(x))
        elif out_code == F64:
            bits = as_u64(x)
            nan = (bits & _U64(0x7FFFFFFFFFFFFFFF)) > _U64(0x7FF0000000000000)
            out[j] = (bits & _U64(1 << 63)) | _U64(0x7FF8000000000000) if nan else bits
        else:
            out[j] = narrow(x, target[0], target[1], target[2], target[3], target[4], target[5])


@compiled
def f32_to_bf16_bits(source: AnyArray, out: AnyArray, n: Number) -> None:
    """Convert n float32 bit patterns to bfloat16 ones: the common case of :func:`convert_bits`."""
    for j in range(n):
        out[j] = f32_to_bf16(as_f32(_U32(source[j])))


def convert(source: AnyArray, source_name: str, out: AnyArray, out_name: str) -> None:
    """Convert between F16, BF16, F32 and F64 by the rules at the top of this module.

    Args:
        source: (n,) bit patterns in the format ``source_name``.
        out: (n,) place for bit patterns in the format ``out_name``.
    """
    if source_name == out_name:
        np.copyto(out, source)
    elif (source_name, out_name) == ("F32", "BF16"):
        f32_to_bf16_bits(source, out, len(source))
    else:
        target = np.array(NARROW.get(out_name, (0,) * 6), np.int64)
        convert_bits(source, CODES[source_name], out, CODES[out_name], len(source), target)
