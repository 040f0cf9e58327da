"""Philox4x32-10: counter-based random numbers, one block for every two elements of a tensor.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11.
A block depends on its counter and key alone, so any worker computes any element's numbers. Kernels draw for
themselves; what is here shows what they draw.
"""

from __future__ import annotations

import ctypes
from hashlib import blake2b

import numpy as np

from plait_workers.kernels.native import Pointer, U32Array, address, kernel

Key = tuple[int, int]
"""Two 32-bit words (k0, k1)."""


def tensor_key(seed: int, name: str) -> Key:
    """The Philox key of one tensor: equal for equal (seed, name), whatever else a model holds.

    Args:
        seed: integer in [0, 2**64).
        name: the tensor's name in the output.
    """
    digest = blake2b(
        name.encode("utf-8"), digest_size=8, key=seed.to_bytes(8, "little"), person=b"plait.select.v1"
    ).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox_block(counter: tuple[int, int, int, int], key: Key) -> tuple[int, int, int, int]:
    """One block: four 32-bit words from a 128-bit counter and a 64-bit key."""
    words = (ctypes.c_uint32 * 4)(*counter)
    kernel("philox")(words, ctypes.c_uint32(key[0]), ctypes.c_uint32(key[1]))
    return words[0], words[1], words[2], words[3]


def draw(key: Key, first: int, count: int) -> tuple[U32Array, U32Array]:
    """The numbers (u, v) of elements ``first`` to ``first + count - 1``: two arrays of (count,)."""
    u, v = np.empty(count, np.uint32), np.empty(count, np.uint32)
    kernel("draw")(
        ctypes.c_uint32(key[0]),
        ctypes.c_uint32(key[1]),
        ctypes.c_uint64(first),
        ctypes.c_size_t(count),
        Pointer(address(u)),
        Pointer(address(v)),
    )
    return u, v
