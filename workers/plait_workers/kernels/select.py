"""Parameter selection with resampling (Eq. 2 and Eq. 3 of arXiv 2410.03743), in one pass.

Eq. 3 draws a sub-model, draws again where it left the base's value, n times at most. The law of
what comes out needs only how much probability M of S changed an element: the base stays with
((S - M) / S)^(n + 1), else one of the changed sub-models is taken in proportion to its weight. So
two random numbers an element and one look at each sub-model are enough, for every n.

An array is cut into tiles that stay in cache. For each tile: count what changed, draw, rank (which of
the changed ones is taken), pick. The loops are in :mod:`plait_workers.kernels.select_loops`.
"""

from __future__ import annotations

import numpy as np

from plait_workers.kernels.compiled import AnyArray, I64Array, Number, U32Array, U64Array, compiled
from plait_workers.kernels.philox import draw
from plait_workers.kernels.select_loops import (
    KEEP_BASE,
    count_1,
    count_4,
    count_nan,
    largest_digits,
    non_finite,
    pick_1,
    pick_4,
    pick_nan,
    rank_elements,
    take_between,
    tile,
)

TILE = 2048
_32 = np.uint64(32)
_U16 = np.uint16
_U32 = np.uint32


@compiled
def _count_tile(
    pointers: U64Array, b: AnyArray, m: AnyArray, start: Number, n: Number, form: AnyArray, stats: I64Array
) -> bool:
    """Fill ``m`` with the number of changed sub-models; true where a value is not finite."""
    num = len(pointers)
    flip, digits, sign_free = form[0], form[1], form[2]
    largest = largest_digits(b, n, flip, digits)
    for j in range(n):
        m[j] = 0
    i = 0
    while i + 4 <= num:
        x0, x1 = tile(pointers, i, start, n, b), tile(pointers, i + 1, start, n, b)
        x2, x3 = tile(pointers, i + 2, start, n, b), tile(pointers, i + 3, start, n, b)
        largest = count_4(x0, x1, x2, x3, b, m, n, flip, digits, sign_free, largest)
        i += 4
    while i < num:
        x0 = tile(pointers, i, start, n, b)
        largest = count_1(x0, b, m, n, flip, digits, sign_free, largest)
        i += 1
    if largest < form[3]:
        return False
    for j in range(n):
        m[j] = 0
    for i in range(num):
        x0 = tile(pointers, i, start, n, b)
        stats[num + 1 + i] += non_finite(x0, n, flip, digits, form[3])
        count_nan(x0, b, m, n, flip, digits, sign_free, form[4])
    stats[2 * num + 1] += non_finite(b, n, flip, digits, form[3])
    return True


@compiled
def _pick_tile(
    pointers: U64Array,
    b: AnyArray,
    rank: AnyArray,
    out: AnyArray,
    start: Number,
    n: Number,
    form: AnyArray,
    with_nan: bool,
    stats: I64Array,
) -> None:
    num = len(pointers)
    sign_free = form[2]
    i = 0
    while not with_nan and i + 4 <= num:
        x0, x1 = tile(pointers, i, start, n, b), tile(pointers, i + 1, start, n, b)
        x2, x3 = tile(pointers, i + 2, start, n, b), tile(pointers, i + 3, start, n, b)
        pick_4(x0, x1, x2, x3, b, rank, out, n, sign_free, stats[i : i + 4])
        i += 4
    while i < num:
        x0 = tile(pointers, i, start, n, b)
        if with_nan:
            stats[i] += pick_nan(x0, b, rank, out, n, form[0], form[1], sign_free, form[4])
        else:
            stats[i] += pick_1(x0, b, rank, out, n, sign_free)
        i += 1


@compiled
def select_equal(
    pointers: U64Array,
    base: AnyArray,
    out: AnyArray,
    first: Number,
    k0: Number,
    k1: Number,
    keep: U32Array,
    form: AnyArray,
    stats: I64Array,
) -> None:
    """Select with resampling (n >= 1), all weights equal.

    Args:
        pointers: addresses of K arrays of len(out) bit patterns each.
        base: len(out) bit patterns.
        out: what is taken; may not overlap an input.
        first: index of the first element within its whole tensor.
        k0, k1: the tensor's Philox key.
        keep: (K + 1,) thresholds T by the number of changed sub-models; the base stays if v < T.
        form: (5,) what the bits mean, see :mod:`plait_workers.kernels.forms`.
        stats: (2 K + 2,) counters to add to: taken from each sub-model; base kept; non-finite
            values of each sub-model; of the base.
    """
    num = len(pointers)
    u, v = np.empty(TILE + 8, np.uint32), np.empty(TILE + 8, np.uint32)
    m, rank = np.empty(TILE, np.uint16), np.empty(TILE, np.uint16)
    for start in range(0, len(out), TILE):
        n = min(TILE, len(out) - start)
        b, o = base[start : start + n], out[start : start + n]
        with_nan = _count_tile(pointers, b, m, start, n, form, stats)
        for j in range(n):
            o[j] = b[j]
        if largest_digits(m, n, _U16(0), KEEP_BASE) == 0:
            stats[num] += n  # a frozen stretch: nothing to draw
            continue
        index = np.uint64(first) + np.uint64(start)
        odd = np.int64(index & np.uint64(1))
        draw(np.uint64(k0), np.uint64(k1), index >> np.uint64(1), (n + odd + 3) // 4 * 2, u, v)
        rank_elements(u[odd:], v[odd:], m, keep, rank, n)
        before = stats[:num].sum()
        _pick_tile(pointers, b, rank, o, start, n, form, with_nan, stats)
        stats[num] += n - (stats[:num].sum() - before)


@compiled
def select_blind(
    pointers: U64Array,
    out: AnyArray,
    first: Number,
    k0: Number,
    k1: Number,
    total: Number,
    upto: U32Array,
    form: AnyArray,
    stats: I64Array,
) -> None:
    """Select without resampling (n = 0): the base is not looked at.

    Args:
        total: S, the sum of the integer weights.
        upto: (K,) the weights' running sums W_0 + .. + W_i.

    The others, and ``stats``, are those of :func:`select_equal`.
    """
    num = len(pointers)
    u, v = np.empty(TILE + 8, np.uint32), np.empty(TILE + 8, np.uint32)
    for start in range(0, len(out), TILE):
        n = min(TILE, len(out) - start)
        o = out[start : start + n]
        index = np.uint64(first) + np.uint64(start)
        odd = np.int64(index & np.uint64(1))
        draw(np.uint64(k0), np.uint64(k1), index >> np.uint64(1), (n + odd + 3) // 4 * 2, u, v)
        t = u[odd:]
        for j in range(n):
            t[j] = _U32((np.uint64(t[j]) * np.uint64(total)) >> _32)
        below = _U32(0)
        for i in range(num):
            x = tile(pointers, i, start, n, out)
            if largest_digits(x, n, form[0], form[1]) >= form[3]:
                stats[num + 1 + i] += non_finite(x, n, form[0], form[1], form[3])
            stats[i] += take_between(x, t, o, n, below, upto[i])
            below = upto[i]
