"""Parameter selection with resampling where the sub-models' weights differ.

The same tiles as :mod:`plait_workers.kernels.select`, with sums of integer weights (S = 2**24) in
the place of counts: M has too many values for a table, so the threshold's n multiplications are
done for each element.
"""

from __future__ import annotations

import numpy as np

from plait_workers.kernels.compiled import AnyArray, I64Array, Number, U8Array, U32Array, U64Array, compiled
from plait_workers.kernels.philox import draw
from plait_workers.kernels.select import TILE
from plait_workers.kernels.select_loops import changed, is_nan, largest_digits, non_finite, tile

_8 = np.uint64(8)
_32 = np.uint64(32)
_U8 = np.uint8
_U32 = np.uint32
_TOTAL = np.uint64(1 << 24)
_NOBODY = np.uint32(0xFFFFFFFF)


@compiled
def _mark(
    x: AnyArray, b: AnyArray, mark: U8Array, m: U32Array, n: Number, weight: Number, sign_free: Number
) -> None:
    for j in range(n):
        value, base, total = x[j], b[j], m[j]
        c = changed(value, base, sign_free)
        mark[j] = _U8(c)
        m[j] = _U32(total + weight) if c else total


@compiled
def _mark_nan(
    x: AnyArray, b: AnyArray, mark: U8Array, m: U32Array, n: Number, weight: Number, form: AnyArray
) -> None:
    flip, digits, sign_free, nan_from = form[0], form[1], form[2], form[4]
    for j in range(n):
        value, base, total = x[j], b[j], m[j]
        c = changed(value, base, sign_free) | is_nan(value, flip, digits, nan_from)
        mark[j] = _U8(c)
        m[j] = _U32(total + weight) if c else total


@compiled
def _target(
    u: U32Array, v: U32Array, m: U32Array, n: Number, resample: Number, threshold: U32Array, target: U32Array
) -> None:
    """The point on the running sum of changed weights that is taken, or nobody's."""
    for j in range(n):
        # M = 0 gives q = 2**32, kept as 2**32 - 1: then nobody is marked, and it does not matter.
        q = (_TOTAL - np.uint64(m[j])) << _8
        target[j] = _U32(min(q, np.uint64(0xFFFFFFFF)))
        threshold[j] = target[j] if resample >= 0 else _U32(0)
    for _ in range(resample):
        for j in range(n):
            threshold[j] = _U32((np.uint64(threshold[j]) * np.uint64(target[j])) >> _32)
    for j in range(n):
        t = _U32((np.uint64(u[j]) * np.uint64(m[j])) >> _32)
        target[j] = _NOBODY if v[j] < threshold[j] else t


@compiled
def _pick_marked(
    x: AnyArray, mark: U8Array, left: U32Array, out: AnyArray, n: Number, weight: Number
) -> Number:
    """Take x where the target lies within its weight; ``left`` is what of the target lies beyond.

    Beyond its sub-model a target wraps around to more than all weights together.
    """
    taken = _U32(0)
    for j in range(n):
        # All loads come first: the compiler turns no load behind a condition into a vector.
        value, before, rest = x[j], out[j], left[j]
        share = weight if mark[j] else _U32(0)
        hit = rest < share
        left[j] = _U32(rest - share)
        out[j] = value if hit else before
        taken = _U32(taken + _U32(hit))
    return taken


@compiled
def select_weighted(
    pointers: U64Array,
    base: AnyArray,
    out: AnyArray,
    first: Number,
    k0: Number,
    k1: Number,
    weights: U32Array,
    resample: Number,
    form: AnyArray,
    stats: I64Array,
) -> None:
    """Select with resampling (n >= 1), weights not all equal.

    Args:
        weights: (K,) integer weights W_i, with sum 2**24.
        resample: n, or -1 for unlimited.

    The others are those of :func:`plait_workers.kernels.select.select_equal`.
    """
    num = len(pointers)
    u, v = np.empty(TILE + 8, np.uint32), np.empty(TILE + 8, np.uint32)
    m, target, threshold = np.empty(TILE, np.uint32), np.empty(TILE, np.uint32), np.empty(TILE, np.uint32)
    marks = np.empty((num, TILE), np.uint8)
    flip, digits, sign_free, inf_from = form[0], form[1], form[2], form[3]
    for start in range(0, len(out), TILE):
        n = min(TILE, len(out) - start)
        b, o = base[start : start + n], out[start : start + n]
        stats[2 * num + 1] += non_finite(b, n, flip, digits, inf_from)
        for j in range(n):
            m[j] = 0
            o[j] = b[j]
        for i in range(num):
            x = tile(pointers, i, start, n, out)
            if largest_digits(x, n, flip, digits) < inf_from:
                _mark(x, b, marks[i], m, n, weights[i], sign_free)
            else:
                stats[num + 1 + i] += non_finite(x, n, flip, digits, inf_from)
                _mark_nan(x, b, marks[i], m, n, weights[i], form)
        index = np.uint64(first) + np.uint64(start)
        odd = np.int64(index & np.uint64(1))
        draw(np.uint64(k0), np.uint64(k1), index >> np.uint64(1), (n + odd + 3) // 4 * 2, u, v)
        _target(u[odd:], v[odd:], m, n, resample, threshold, target)
        before = stats[:num].sum()
        for i in range(num):
            x = tile(pointers, i, start, n, out)
            stats[i] += _pick_marked(x, marks[i], target, o, n, weights[i])
        stats[num] += n - (stats[:num].sum() - before)
