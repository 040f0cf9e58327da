"""Parameter selection with resampling (Eq. 2 and Eq. 3 of arXiv 2410.03743), in one pass.

Eq. 3 draws a sub-model, draws again where it left the base's value, n times at most. The law of
what comes out needs only how much probability M of S changed an element: the base stays with
((S - M) / S)^(n + 1), else one of the changed sub-models is taken in proportion to its weight. So
two random numbers an element and one look at each sub-model are enough, for every n.

An array is cut into tiles that stay in the first-level cache. For each tile: count what changed,
draw, rank (which of the changed ones is taken), pick. Four sub-models share a loop, so that counters
and ranks are loaded and stored a quarter as often. A NaN differs from everything, which costs a
compare for each value; so tiles are first looked at for non-finite values, and only those that hold
one take the slower loops.
"""

from __future__ import annotations

import numpy as np

from plait_workers.kernels.compiled import (
    AnyArray,
    I64Array,
    Number,
    U32Array,
    U64Array,
    as_pointer,
    carray,
    compiled,
    inlined,
)
from plait_workers.kernels.philox import draw

TILE = 2048
KEEP_BASE = np.uint16(0xFFFF)
_32 = np.uint64(32)
_U16 = np.uint16
_U32 = np.uint32


@inlined
def _changed(x: Number, b: Number, digits: Number) -> Number:
    """1 where x differs from b in value; ``digits`` masks the sign, as -0 equals +0. No NaN."""
    return _U16(((x ^ b) != 0) & (((x | b) & digits) != 0))


@inlined
def _is_nan(x: Number, flip: Number, digits: Number, nan_from: Number) -> Number:
    return _U16(((x ^ flip) & digits) >= nan_from)


@compiled
def _largest(x: AnyArray, n: Number, flip: Number, digits: Number) -> Number:
    largest = x.dtype.type(0)
    for j in range(n):
        largest = max(largest, x.dtype.type((x[j] ^ flip) & digits))
    return largest


@compiled
def _count_1(
    x0: AnyArray,
    b: AnyArray,
    m: AnyArray,
    n: Number,
    flip: Number,
    digits: Number,
    sign_free: Number,
    largest: Number,
) -> Number:
    for j in range(n):
        x = x0[j]
        m[j] = _U16(m[j] + _changed(x, b[j], sign_free))
        largest = max(largest, x0.dtype.type((x ^ flip) & digits))
    return largest


@compiled
def _count_4(
    x0: AnyArray,
    x1: AnyArray,
    x2: AnyArray,
    x3: AnyArray,
    b: AnyArray,
    m: AnyArray,
    n: Number,
    flip: Number,
    digits: Number,
    sign_free: Number,
    largest: Number,
) -> Number:
    for j in range(n):
        c = b[j]
        low = _U16(_changed(x0[j], c, sign_free) + _changed(x1[j], c, sign_free))
        high = _U16(_changed(x2[j], c, sign_free) + _changed(x3[j], c, sign_free))
        m[j] = _U16(m[j] + _U16(low + high))
        d0, d1 = x0.dtype.type((x0[j] ^ flip) & digits), x0.dtype.type((x1[j] ^ flip) & digits)
        d2, d3 = x0.dtype.type((x2[j] ^ flip) & digits), x0.dtype.type((x3[j] ^ flip) & digits)
        largest = max(largest, max(max(d0, d1), max(d2, d3)))
    return largest


@compiled
def _count_nan(
    x: AnyArray,
    b: AnyArray,
    m: AnyArray,
    n: Number,
    flip: Number,
    digits: Number,
    sign_free: Number,
    nan_from: Number,
) -> None:
    for j in range(n):
        nan = _is_nan(x[j], flip, digits, nan_from)
        m[j] = _U16(m[j] + (_changed(x[j], b[j], sign_free) | nan))


@compiled
def _rank(u: U32Array, v: U32Array, m: AnyArray, keep: U32Array, rank: AnyArray, n: Number) -> None:
    """Which of an element's M changed sub-models is taken: 0 .. M - 1, or none."""
    for j in range(n):
        t = (np.uint64(u[j]) * np.uint64(m[j])) >> _32
        rank[j] = KEEP_BASE if v[j] < keep[m[j]] else _U16(t)


@compiled
def _pick_1(x0: AnyArray, b: AnyArray, rank: AnyArray, out: AnyArray, n: Number, digits: Number) -> Number:
    taken = _U16(0)
    for j in range(n):
        r, x = rank[j], x0[j]
        c = _changed(x, b[j], digits)
        hit = c & _U16(r == 0)
        out[j] = x if hit else out[j]
        rank[j] = _U16(r - c)
        taken = _U16(taken + hit)
    return taken


@compiled
def _pick_4(
    x0: AnyArray,
    x1: AnyArray,
    x2: AnyArray,
    x3: AnyArray,
    b: AnyArray,
    rank: AnyArray,
    out: AnyArray,
    n: Number,
    digits: Number,
    taken: I64Array,
) -> None:
    t0, t1, t2, t3 = _U16(0), _U16(0), _U16(0), _U16(0)
    for j in range(n):
        base, r, o = b[j], rank[j], out[j]
        x = x0[j]
        c = _changed(x, base, digits)
        hit = c & _U16(r == 0)
        o = x if hit else o
        r = _U16(r - c)
        t0 = _U16(t0 + hit)
        x = x1[j]
        c = _changed(x, base, digits)
        hit = c & _U16(r == 0)
        o = x if hit else o
        r = _U16(r - c)
        t1 = _U16(t1 + hit)
        x = x2[j]
        c = _changed(x, base, digits)
        hit = c & _U16(r == 0)
        o = x if hit else o
        r = _U16(r - c)
        t2 = _U16(t2 + hit)
        x = x3[j]
        c = _changed(x, base, digits)
        hit = c & _U16(r == 0)
        o = x if hit else o
        r = _U16(r - c)
        t3 = _U16(t3 + hit)
        out[j] = o
        rank[j] = r
    taken[0] += t0
    taken[1] += t1
    taken[2] += t2
    taken[3] += t3


@compiled
def _pick_nan(
    x0: AnyArray,
    b: AnyArray,
    rank: AnyArray,
    out: AnyArray,
    n: Number,
    flip: Number,
    digits: Number,
    sign_free: Number,
    nan_from: Number,
) -> Number:
    taken = _U16(0)
    for j in range(n):
        r, x = rank[j], x0[j]
        c = _changed(x, b[j], sign_free) | _is_nan(x, flip, digits, nan_from)
        hit = c & _U16(r == 0)
        out[j] = x if hit else out[j]
        rank[j] = _U16(r - c)
        taken = _U16(taken + hit)
    return taken


@compiled
def _non_finite(x: AnyArray, n: Number, flip: Number, digits: Number, non_finite_from: Number) -> Number:
    count = 0
    for j in range(n):
        count += ((x[j] ^ flip) & digits) >= non_finite_from
    return count


@inlined
def _tile(pointers: U64Array, i: Number, start: Number, n: Number, like: AnyArray) -> AnyArray:
    address = pointers[i] + np.uint64(start * like.itemsize)
    tile: AnyArray = carray(as_pointer(address), (n,), like.dtype)
    return tile


@compiled
def _count_tile(
    pointers: U64Array, b: AnyArray, m: AnyArray, start: Number, n: Number, form: AnyArray, stats: I64Array
) -> bool:
    """Fill ``m`` with the number of changed sub-models; true where a value is not finite."""
    num = len(pointers)
    flip, digits, sign_free = form[0], form[1], form[2]
    largest = _largest(b, n, flip, digits)
    for j in range(n):
        m[j] = 0
    i = 0
    while i + 4 <= num:
        x0, x1 = _tile(pointers, i, start, n, b), _tile(pointers, i + 1, start, n, b)
        x2, x3 = _tile(pointers, i + 2, start, n, b), _tile(pointers, i + 3, start, n, b)
        largest = _count_4(x0, x1, x2, x3, b, m, n, flip, digits, sign_free, largest)
        i += 4
    while i < num:
        x0 = _tile(pointers, i, start, n, b)
        largest = _count_1(x0, b, m, n, flip, digits, sign_free, largest)
        i += 1
    if largest < form[3]:
        return False
    for j in range(n):
        m[j] = 0
    for i in range(num):
        x0 = _tile(pointers, i, start, n, b)
        stats[num + 1 + i] += _non_finite(x0, n, flip, digits, form[3])
        _count_nan(x0, b, m, n, flip, digits, sign_free, form[4])
    stats[2 * num + 1] += _non_finite(b, n, flip, digits, form[3])
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
        x0, x1 = _tile(pointers, i, start, n, b), _tile(pointers, i + 1, start, n, b)
        x2, x3 = _tile(pointers, i + 2, start, n, b), _tile(pointers, i + 3, start, n, b)
        _pick_4(x0, x1, x2, x3, b, rank, out, n, sign_free, stats[i : i + 4])
        i += 4
    while i < num:
        x0 = _tile(pointers, i, start, n, b)
        if with_nan:
            stats[i] += _pick_nan(x0, b, rank, out, n, form[0], form[1], sign_free, form[4])
        else:
            stats[i] += _pick_1(x0, b, rank, out, n, sign_free)
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
        if _largest(m, n, _U16(0), KEEP_BASE) == 0:
            stats[num] += n  # a frozen stretch: nothing to draw
            continue
        index = np.uint64(first) + np.uint64(start)
        odd = np.int64(index & np.uint64(1))
        draw(np.uint64(k0), np.uint64(k1), index >> np.uint64(1), (n + odd + 3) // 4 * 2, u, v)
        _rank(u[odd:], v[odd:], m, keep, rank, n)
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
            x = _tile(pointers, i, start, n, out)
            if _largest(x, n, form[0], form[1]) >= form[3]:
                stats[num + 1 + i] += _non_finite(x, n, form[0], form[1], form[3])
            stats[i] += _take_between(x, t, o, n, below, upto[i])
            below = upto[i]


@compiled
def _take_between(x: AnyArray, t: U32Array, out: AnyArray, n: Number, low: Number, high: Number) -> Number:
    taken = _U32(0)
    for j in range(n):
        hit = (t[j] >= low) & (t[j] < high)
        out[j] = x[j] if hit else out[j]
        taken = _U32(taken + _U32(hit))
    return taken


@compiled
def count_changed(x: AnyArray, base: AnyArray, form: AnyArray) -> Number:
    """How many elements of x differ from the base's in value: -0 equals +0, a NaN equals nothing."""
    count = 0
    for j in range(len(x)):
        count += _changed(x[j], base[j], form[2]) | _is_nan(x[j], form[0], form[1], form[4])
    return count
