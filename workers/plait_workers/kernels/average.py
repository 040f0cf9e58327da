"""Weighted average (Eq. 1 of arXiv 2410.03743), exact to the bit.

a = +0; then, in the order of the sub-models, a = fl(a + fl(w_i * theta_i)), without fused
multiply-add, in float32 (float64 if an input is F64); one rounding to the output's format at the
end. So the result does not depend on how a tensor is cut.
"""

from __future__ import annotations

import numpy as np

from plait_workers.kernels.compiled import (
    AnyArray,
    F64Array,
    I64Array,
    Number,
    U64Array,
    as_f32,
    as_f64,
    as_pointer,
    as_u32,
    as_u64,
    carray,
    compiled,
)
from plait_workers.kernels.encode import (
    BF16,
    F8,
    F16,
    F32,
    F64,
    bf16_to_f32,
    f16_to_f32,
    f32_to_bf16,
    f32_to_f16,
    f64_to_f32,
    narrow,
)

TILE = 2048
_U32 = np.uint32


@compiled
def _add_bf16(total: AnyArray, x: AnyArray, n: Number, weight: Number) -> None:
    for j in range(n):
        total[j] = total[j] + weight * bf16_to_f32(x[j])


@compiled
def _add_f16(total: AnyArray, x: AnyArray, n: Number, weight: Number) -> None:
    for j in range(n):
        total[j] = total[j] + weight * f16_to_f32(x[j])


@compiled
def _add_f32(total: AnyArray, x: AnyArray, n: Number, weight: Number) -> None:
    for j in range(n):
        total[j] = total[j] + weight * as_f32(_U32(x[j]))


@compiled
def _add_f64(total: AnyArray, x: AnyArray, n: Number, weight: Number) -> None:
    for j in range(n):
        total[j] = total[j] + weight * as_f64(np.uint64(x[j]))


@compiled
def _add_f8(total: AnyArray, x: AnyArray, n: Number, weight: Number, table: F64Array) -> None:
    for j in range(n):
        total[j] = total[j] + weight * total.dtype.type(table[x[j]])


@compiled
def _add(
    total: AnyArray, address: Number, code: Number, start: Number, n: Number, weight: Number, table: F64Array
) -> None:
    s = np.uint64(start)
    w = total.dtype.type(weight)
    if code == BF16:
        _add_bf16(total, carray(as_pointer(address + s * np.uint64(2)), (n,), np.uint16), n, w)
    elif code == F16:
        _add_f16(total, carray(as_pointer(address + s * np.uint64(2)), (n,), np.uint16), n, w)
    elif code == F32:
        _add_f32(total, carray(as_pointer(address + s * np.uint64(4)), (n,), np.uint32), n, w)
    elif code == F8:
        _add_f8(total, carray(as_pointer(address + s), (n,), np.uint8), n, w, table)
    else:
        _add_f64(total, carray(as_pointer(address + s * np.uint64(8)), (n,), np.uint64), n, w)


@compiled
def _round(total: AnyArray, out: AnyArray, n: Number, code: Number, target: I64Array) -> None:
    if code == F64:
        for j in range(n):
            x = np.float64(total[j])
            out[j] = as_u64(x) if x == x else (as_u64(x) & np.uint64(1 << 63)) | np.uint64(0x7FF8 << 48)
    elif code == F32:
        for j in range(n):
            out[j] = as_u32(f64_to_f32(np.float64(total[j])))
    else:
        for j in range(n):
            out[j] = narrow(
                np.float64(total[j]), target[0], target[1], target[2], target[3], target[4], target[5]
            )


@compiled
def _round_f32_to_bf16(total: AnyArray, out: AnyArray, n: Number) -> None:
    for j in range(n):
        out[j] = f32_to_bf16(total[j])


@compiled
def _round_f32_to_f16(total: AnyArray, out: AnyArray, n: Number) -> None:
    for j in range(n):
        out[j] = f32_to_f16(total[j])


@compiled
def _count_bad(total: AnyArray, n: Number) -> Number:
    count = 0
    for j in range(n):
        count += not (total[j] - total[j] == 0)
    return count


@compiled
def _look_closer(
    pointers: U64Array,
    codes: I64Array,
    start: Number,
    n: Number,
    table: F64Array,
    tile: AnyArray,
    stats: I64Array,
) -> None:
    """Count each input's non-finite values in a tile whose sum is not finite."""
    for i in range(len(pointers)):
        tile[:] = 0
        _add(tile, pointers[i], codes[i], start, n, 1.0, table)
        stats[len(pointers) + 1 + i] += _count_bad(tile, n)


@compiled
def average_f32(
    pointers: U64Array,
    codes: I64Array,
    weights: F64Array,
    table: F64Array,
    out: AnyArray,
    out_code: Number,
    target: I64Array,
    stats: I64Array,
) -> None:
    """Average, accumulated in float32.

    Args:
        pointers: addresses of K arrays of len(out) bit patterns.
        codes: (K,) the format of each input, a code of :mod:`plait_workers.kernels.encode`.
        weights: (K,) w_i; each is rounded once to float32.
        table: values by bit pattern if the inputs are 8-bit floats.
        out: bit patterns of the result; may not overlap an input.
        out_code: the format of the result; for 8-bit floats F8.
        target: the six numbers of the result's narrow format, or zeros.
        stats: (2 K + 2,) counters; the inputs' non-finite values are added from K + 1 on.
    """
    total = np.empty(TILE, np.float32)
    for start in range(0, len(out), TILE):
        n = min(TILE, len(out) - start)
        total[:] = 0
        for i in range(len(pointers)):
            _add(total, pointers[i], codes[i], start, n, weights[i], table)
        o = out[start : start + n]
        if out_code == BF16:
            _round_f32_to_bf16(total, o, n)
        elif out_code == F16:
            _round_f32_to_f16(total, o, n)
        else:
            _round(total, o, n, out_code, target)
        if _count_bad(total, n):
            _look_closer(pointers, codes, start, n, table, total, stats)


@compiled
def average_f64(
    pointers: U64Array,
    codes: I64Array,
    weights: F64Array,
    table: F64Array,
    out: AnyArray,
    out_code: Number,
    target: I64Array,
    stats: I64Array,
) -> None:
    """Average, accumulated in float64; the arguments are those of :func:`average_f32`."""
    total = np.empty(TILE, np.float64)
    for start in range(0, len(out), TILE):
        n = min(TILE, len(out) - start)
        total[:] = 0
        for i in range(len(pointers)):
            _add(total, pointers[i], codes[i], start, n, weights[i], table)
        _round(total, out[start : start + n], n, out_code, target)
        if _count_bad(total, n):
            _look_closer(pointers, codes, start, n, table, total, stats)
