"""Weighted average (Eq. 1 of arXiv 2410.03743), exact to the bit.

a = +0; then, in the order of the sub-models, a = fl(a + fl(w_i * theta_i)), without fused
multiply-add, in float32 (float64 if an input is F64); one rounding to the output's format at the
end. So the result does not depend on how a tensor is cut. The loops are in ``native/average_real.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plait_workers.kernels.encode import NarrowFormat
from plait_workers.kernels.native import (
    AnyArray,
    F64Array,
    I64Array,
    Pointer,
    address,
    addresses,
    check_lengths,
    kernel,
)


class _Averaging(ctypes.Structure):
    """``averaging`` of the kernels."""

    _fields_ = (
        ("inputs", Pointer),
        ("codes", Pointer),
        ("weights", Pointer),
        ("table", Pointer),
        ("out", Pointer),
        ("num_models", ctypes.c_size_t),
        ("n", ctypes.c_size_t),
        ("out_code", ctypes.c_int),
        ("to", Pointer),
        ("stats", Pointer),
    )


@dataclass(frozen=True, kw_only=True)
class Averager:
    """What is the same for every stretch of a tensor.

    Args:
        codes: (K,) the format of each input, a code of :mod:`plait_workers.kernels.encode`.
        weights: (K,) w_i; each is rounded once to the accumulator's format.
        table: (256,) values by bit pattern if the inputs are 8-bit floats.
        out_code: the format of the result.
        to: the result's narrow format, where it is one.
        accumulator: what is added up in.
    """

    codes: I64Array
    weights: F64Array
    table: F64Array
    out_code: int
    to: NarrowFormat
    accumulator: Literal["f32", "f64"]

    def average(self, inputs: Sequence[AnyArray], out: AnyArray, stats: I64Array) -> None:
        """Average K arrays of n bit patterns, each in its own format, into ``out``, which overlaps none.

        ``stats`` is (2 K + 2,); the inputs' non-finite values are added from K + 1 on.
        """
        check_lengths(len(out), *inputs, out)
        pointers = addresses(inputs)
        arguments = _Averaging(
            ctypes.addressof(pointers),
            address(self.codes),
            address(self.weights),
            address(self.table),
            address(out),
            len(inputs),
            len(out),
            self.out_code,
            ctypes.addressof(self.to),
            address(stats),
        )
        average = kernel(f"average_{self.accumulator}")
        average.restype = None
        average(ctypes.byref(arguments))
