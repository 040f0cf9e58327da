"""Philox4x32-10: counter-based random numbers, one block for every two elements of a tensor.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11.
A block depends on its counter and key alone, so any worker computes any element's numbers.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from plait_workers.kernels.compiled import Number, U32Array, compiled, inlined

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ZERO = np.uint64(0)


def tensor_key(seed: int, name: str) -> tuple[int, int]:
    """The Philox key of one tensor: equal for equal (seed, name), whatever else a model holds.

    Args:
        seed: integer in [0, 2**64).
        name: the tensor's name in the output.

    Returns:
        Two 32-bit words (k0, k1).
    """
    digest = blake2b(
        name.encode("utf-8"), digest_size=8, key=seed.to_bytes(8, "little"), person=b"plait.select.v1"
    ).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


@inlined
def _round(
    x0: Number, x1: Number, x2: Number, x3: Number, k0: Number, k1: Number
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    # Words live in 64-bit lanes; only their low halves count, and only multiplications care.
    product0 = (x0 & _LOW) * _MULTIPLIER_0
    product1 = (x2 & _LOW) * _MULTIPLIER_1
    return (product1 >> _32) ^ x1 ^ k0, product1, (product0 >> _32) ^ x3 ^ k1, product0


@compiled
def philox_block(
    c0: Number, c1: Number, c2: Number, c3: Number, k0: Number, k1: Number, out: U32Array
) -> None:
    """One block: four 32-bit words from a 128-bit counter and a 64-bit key, into ``out[0:4]``."""
    x0, x1, x2, x3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    a, b = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        x0, x1, x2, x3 = _round(x0, x1, x2, x3, a, b)
        a = (a + _WEYL_0) & _LOW
        b = (b + _WEYL_1) & _LOW
    out[0] = np.uint32(x0)
    out[1] = np.uint32(x1)
    out[2] = np.uint32(x2)
    out[3] = np.uint32(x3)


@compiled
def draw(k0: Number, k1: Number, block: Number, num_blocks: Number, u: U32Array, v: U32Array) -> None:
    """Numbers (u, v) for the 2 x ``num_blocks`` elements that start at element 2 x ``block``.

    ``num_blocks`` is even: two halves are drawn side by side, because one alone would wait for
    the latency of its ten dependent multiplications.
    """
    half = num_blocks // 2
    low, high = block & _LOW, block >> _32
    if low + np.uint64(num_blocks) > _LOW:  # the counter's second word changes on the way
        _draw_pairs(k0, k1, low, high, num_blocks, u, v)
        return
    _draw_halves(k0, k1, low, high, half, u, v)


@compiled
def _draw_halves(
    k0: Number, k1: Number, low: Number, high: Number, half: Number, u: U32Array, v: U32Array
) -> None:
    # With words two and three zero and the second one fixed, half of rounds one and two is the same
    # for all blocks: the compiler hoists it.
    for i in range(half):
        x0, x1, x2, x3 = low + np.uint64(i), high, _ZERO, _ZERO
        y0, y1, y2, y3 = x0 + np.uint64(half), high, _ZERO, _ZERO
        a, b = k0, k1
        for _ in range(10):
            x0, x1, x2, x3 = _round(x0, x1, x2, x3, a, b)
            y0, y1, y2, y3 = _round(y0, y1, y2, y3, a, b)
            a = (a + _WEYL_0) & _LOW
            b = (b + _WEYL_1) & _LOW
        u[2 * i] = np.uint32(x0)
        v[2 * i] = np.uint32(x1)
        u[2 * i + 1] = np.uint32(x2)
        v[2 * i + 1] = np.uint32(x3)
        u[2 * (i + half)] = np.uint32(y0)
        v[2 * (i + half)] = np.uint32(y1)
        u[2 * (i + half) + 1] = np.uint32(y2)
        v[2 * (i + half) + 1] = np.uint32(y3)


@compiled
def _draw_pairs(
    k0: Number, k1: Number, low: Number, high: Number, num_blocks: Number, u: U32Array, v: U32Array
) -> None:
    for i in range(num_blocks):
        counter = low + np.uint64(i)
        x0, x1, x2, x3 = counter & _LOW, high + (counter >> _32), _ZERO, _ZERO
        a, b = k0, k1
        for _ in range(10):
            x0, x1, x2, x3 = _round(x0, x1, x2, x3, a, b)
            a = (a + _WEYL_0) & _LOW
            b = (b + _WEYL_1) & _LOW
        u[2 * i] = np.uint32(x0)
        v[2 * i] = np.uint32(x1)
        u[2 * i + 1] = np.uint32(x2)
        v[2 * i + 1] = np.uint32(x3)
