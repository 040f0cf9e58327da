"""Parameter selection with resampling (Eq. 2 and Eq. 3 of arXiv 2410.03743), in one pass.

Eq. 3 draws a sub-model, draws again where it left the base's value, n times at most. The law of
what comes out needs only how much probability M of S changed an element: the base stays with
((S - M) / S)^(n + 1), else one of the changed sub-models is taken in proportion to its weight. So
two random numbers an element and one look at each sub-model are enough, for every n.

The loops are in ``native/select_width.h``. The laws here hold what they draw by; they are made once a
tensor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from plait_workers.kernels.forms import Form
from plait_workers.kernels.native import (
    AnyArray,
    I64Array,
    Pointer,
    address,
    addresses,
    check_done,
    check_lengths,
    kernel,
)
from plait_workers.kernels.philox import Key

_LEAST_TABLE: Final = 32
"""Entries that a kernel may read of a table of thresholds, whatever its size."""


class _Selection(ctypes.Structure):
    """``selection`` of the kernels."""

    _fields_ = (
        ("inputs", Pointer),
        ("base", Pointer),
        ("out", Pointer),
        ("num_models", ctypes.c_size_t),
        ("n", ctypes.c_size_t),
        ("first", ctypes.c_uint64),
        ("k0", ctypes.c_uint32),
        ("k1", ctypes.c_uint32),
        ("form", Pointer),
        ("stats", Pointer),
    )


class _Law(ctypes.Structure):
    """``law`` of the kernels."""

    _fields_ = (
        ("keep", Pointer),
        ("keep_size", ctypes.c_size_t),
        ("weights", Pointer),
        ("resample", ctypes.c_int),
    )


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of a tensor to select in. Arrays hold n bit patterns, aligned or not.

    Args:
        inputs: K arrays.
        out: what is taken; may not overlap an input.
        first: index of the first element within its whole tensor.
        key: the tensor's Philox key.
        form: what the bits mean.
        stats: (2 K + 2,) counters to add to: taken from each sub-model; base kept; non-finite
            values of each sub-model; of the base.
    """

    inputs: Sequence[AnyArray]
    out: AnyArray
    first: int
    key: Key
    form: Form
    stats: I64Array

    def select(self, name: str, base: AnyArray | None, *law: Any) -> None:
        """Run a kernel on it."""
        n, (k0, k1) = len(self.out), self.key
        check_lengths(n, *self.inputs, self.out, *(() if base is None else (base,)))
        pointers = addresses(self.inputs)
        selection = _Selection(
            ctypes.addressof(pointers),
            None if base is None else address(base),
            address(self.out),
            len(self.inputs),
            n,
            self.first,
            k0,
            k1,
            ctypes.addressof(self.form),
            address(self.stats),
        )
        width = 8 * self.out.itemsize
        check_done(kernel(f"{name}_{width}")(ctypes.byref(selection), *law))


class Law(Protocol):
    """What elements are drawn by."""

    def select(self, stretch: Stretch, base: AnyArray | None) -> None:
        """Fill ``stretch.out``."""
        ...


@dataclass(frozen=True)
class EqualLaw:
    """n >= 1, all weights equal.

    Args:
        keep: (K + 1,) thresholds T by the number of changed sub-models; the base stays if v < T.
    """

    keep: Sequence[int]
    _c: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = np.zeros(max(_LEAST_TABLE, len(self.keep)), np.uint32)
        table[: len(self.keep)] = self.keep
        ones = np.ones(len(self.keep), np.uint32)
        object.__setattr__(self, "_c", (_Law(address(table), len(self.keep), address(ones), 0), table, ones))

    def select(self, stretch: Stretch, base: AnyArray | None) -> None:
        """Fill ``stretch.out``; needs the base."""
        assert base is not None
        stretch.select("select_equal", base, ctypes.byref(self._c[0]))


@dataclass(frozen=True)
class WeightedLaw:
    """n >= 1, weights not all equal.

    Args:
        weights: (K,) integer weights W_i, with sum 2**24.
        resample: n, or -1 for unlimited.
    """

    weights: Sequence[int]
    resample: int
    _c: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weights = np.array(self.weights, np.uint32)
        object.__setattr__(self, "_c", (_Law(None, 0, address(weights), self.resample), weights))

    def select(self, stretch: Stretch, base: AnyArray | None) -> None:
        """Fill ``stretch.out``; needs the base."""
        assert base is not None
        stretch.select("select_weighted", base, ctypes.byref(self._c[0]))


@dataclass(frozen=True)
class BlindLaw:
    """n = 0: the base is not looked at.

    Args:
        weights: (K,) integer weights W_i with sum S.
    """

    weights: Sequence[int]
    _upto: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_upto", np.cumsum(self.weights, dtype=np.uint32))

    def select(self, stretch: Stretch, base: AnyArray | None) -> None:
        """Fill ``stretch.out``."""
        total = ctypes.c_uint32(int(self._upto[-1]))
        stretch.select("select_blind", None, total, Pointer(address(self._upto)))


def count_changed(x: AnyArray, base: AnyArray, form: Form) -> int:
    """How many elements of x differ from the base's in value: -0 equals +0, a NaN equals nothing."""
    check_lengths(len(x), x, base)
    count = kernel(f"count_changed_{8 * x.itemsize}")
    count.restype = ctypes.c_int64
    found: int = count(
        Pointer(address(x)), Pointer(address(base)), ctypes.c_size_t(len(x)), ctypes.byref(form)
    )
    return found
