"""The loops of parameter selection, each over one tile of a few arrays: what the compiler vectorises.

A NaN differs from everything, which costs a compare for each value; so tiles are first looked at for
non-finite values, and only those that hold one take the loops that end in ``_nan``. Four sub-models
share a loop where they can, so that counters and ranks are loaded and stored a quarter as often.

Bit patterns are told apart by the five numbers of :mod:`plait_workers.kernels.forms`.
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

KEEP_BASE = np.uint16(0xFFFF)
"""The rank of an element that takes nobody's value."""

_32 = np.uint64(32)
_U16 = np.uint16
_U32 = np.uint32


@inlined
def changed(x: Number, b: Number, digits: Number) -> Number:
    """1 where x differs from b in value; ``digits`` masks the sign, as -0 equals +0. No NaN."""
    return _U16(((x ^ b) != 0) & (((x | b) & digits) != 0))


@inlined
def is_nan(x: Number, flip: Number, digits: Number, nan_from: Number) -> Number:
    return _U16(((x ^ flip) & digits) >= nan_from)


@compiled
def largest_digits(x: AnyArray, n: Number, flip: Number, digits: Number) -> Number:
    largest = x.dtype.type(0)
    for j in range(n):
        largest = max(largest, x.dtype.type((x[j] ^ flip) & digits))
    return largest


@compiled
def count_1(
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
        m[j] = _U16(m[j] + changed(x, b[j], sign_free))
        largest = max(largest, x0.dtype.type((x ^ flip) & digits))
    return largest


@compiled
def count_4(
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
        low = _U16(changed(x0[j], c, sign_free) + changed(x1[j], c, sign_free))
        high = _U16(changed(x2[j], c, sign_free) + changed(x3[j], c, sign_free))
        m[j] = _U16(m[j] + _U16(low + high))
        d0, d1 = x0.dtype.type((x0[j] ^ flip) & digits), x0.dtype.type((x1[j] ^ flip) & digits)
        d2, d3 = x0.dtype.type((x2[j] ^ flip) & digits), x0.dtype.type((x3[j] ^ flip) & digits)
        largest = max(largest, max(max(d0, d1), max(d2, d3)))
    return largest


@compiled
def count_nan(
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
        nan = is_nan(x[j], flip, digits, nan_from)
        m[j] = _U16(m[j] + (changed(x[j], b[j], sign_free) | nan))


@compiled
def rank_elements(u: U32Array, v: U32Array, m: AnyArray, keep: U32Array, rank: AnyArray, n: Number) -> None:
    """Which of an element's M changed sub-models is taken: 0 .. M - 1, or none."""
    for j in range(n):
        t = (np.uint64(u[j]) * np.uint64(m[j])) >> _32
        rank[j] = KEEP_BASE if v[j] < keep[m[j]] else _U16(t)


@compiled
def pick_1(x0: AnyArray, b: AnyArray, rank: AnyArray, out: AnyArray, n: Number, digits: Number) -> Number:
    taken = _U16(0)
    for j in range(n):
        r, x, o = rank[j], x0[j], out[j]
        c = changed(x, b[j], digits)
        hit = c & _U16(r == 0)
        out[j] = x if hit else o
        rank[j] = _U16(r - c)
        taken = _U16(taken + hit)
    return taken


@compiled
def pick_4(
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
        c = changed(x, base, digits)
        hit = c & _U16(r == 0)
        o = x if hit else o
        r = _U16(r - c)
        t0 = _U16(t0 + hit)
        x = x1[j]
        c = changed(x, base, digits)
        hit = c & _U16(r == 0)
        o = x if hit else o
        r = _U16(r - c)
        t1 = _U16(t1 + hit)
        x = x2[j]
        c = changed(x, base, digits)
        hit = c & _U16(r == 0)
        o = x if hit else o
        r = _U16(r - c)
        t2 = _U16(t2 + hit)
        x = x3[j]
        c = changed(x, base, digits)
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
def pick_nan(
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
        r, x, o = rank[j], x0[j], out[j]
        c = changed(x, b[j], sign_free) | is_nan(x, flip, digits, nan_from)
        hit = c & _U16(r == 0)
        out[j] = x if hit else o
        rank[j] = _U16(r - c)
        taken = _U16(taken + hit)
    return taken


@compiled
def non_finite(x: AnyArray, n: Number, flip: Number, digits: Number, non_finite_from: Number) -> Number:
    count = 0
    for j in range(n):
        count += ((x[j] ^ flip) & digits) >= non_finite_from
    return count


@inlined
def tile(pointers: U64Array, i: Number, start: Number, n: Number, like: AnyArray) -> AnyArray:
    address = pointers[i] + np.uint64(start * like.itemsize)
    tile: AnyArray = carray(as_pointer(address), (n,), like.dtype)
    return tile


@compiled
def take_between(x: AnyArray, t: U32Array, out: AnyArray, n: Number, low: Number, high: Number) -> Number:
    taken = _U32(0)
    for j in range(n):
        # All loads come first: the compiler turns no load behind a condition into a vector.
        value, before, target = x[j], out[j], t[j]
        hit = (target >= low) & (target < high)
        out[j] = value if hit else before
        taken = _U32(taken + _U32(hit))
    return taken


@compiled
def count_changed(x: AnyArray, base: AnyArray, form: AnyArray) -> Number:
    """How many elements of x differ from the base's in value: -0 equals +0, a NaN equals nothing."""
    count = 0
    for j in range(len(x)):
        count += changed(x[j], base[j], form[2]) | is_nan(x[j], form[0], form[1], form[4])
    return count
