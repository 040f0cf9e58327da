"""``average``: the weighted mean of the sub-models (Eq. 1), exact to the bit.

Source: arXiv 2410.03743, Eq. 1. Accumulated in float32 (float64 if an input is F64) in the order of
the spec's ``models``, rounded once to the output's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from plait.errors import PlaitError, SpecInvalid
from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.kernels.average import Averager
from plait_workers.kernels.encode import CODES, F8, NARROW, narrow_format, table_of
from plait_workers.methods.base import Bits, Counters, Merger, Method, TensorContext


class Average(Method):
    """Options of ``average``: with ``normalize`` the weights are divided by their sum."""

    name: Literal["average"] = "average"
    normalize: bool = True

    @property
    def needs_base(self) -> bool:
        """The base is never read."""
        return False

    def can_merge(self, dtype: Dtype) -> bool:
        """Floats. The mean of integers, and of powers of two, is none."""
        return dtype.name in CODES or dtype.name in NARROW

    def check_weights(self, weights: Sequence[float]) -> list[PlaitError]:
        """Finite, and with a sum to divide by."""
        found = f"weights {list(weights)[:8]}"
        if not all(math.isfinite(weight) for weight in weights):
            return [SpecInvalid("models: weights must be finite", found=found)]
        try:
            if math.fsum(weights) == 0:
                return [SpecInvalid("models: the weights' sum must not be 0", found=found)]
            if all(math.isfinite(factor) for factor in self.factors(weights)):
                return []
        except OverflowError:  # of the sum itself
            pass
        return [SpecInvalid("models: the weights, or their factors, are too large for a double", found=found)]

    def describe(self, weights: Sequence[float]) -> str:
        """The factors as they are applied."""
        factors = self.factors(weights)
        same = len(set(factors)) == 1
        law = f"w = {factors[0]:.9g} each" if same else "w = " + ", ".join(f"{w:.9g}" for w in factors)
        return f"average, {law}"

    def factors(self, weights: Sequence[float]) -> list[float]:
        """w_i, in double precision; their sum is rounded once, so it depends on no order."""
        total = math.fsum(weights)
        return [weight / total for weight in weights] if self.normalize else list(weights)

    def merger(self, context: TensorContext) -> Merger:
        """Bound to a tensor: formats and factors."""
        return _AverageMerger(self, context)


class _AverageMerger:
    def __init__(self, method: Average, context: TensorContext) -> None:
        names = [dtype.name for dtype in context.inputs]
        self._averager = Averager(
            codes=np.array([CODES.get(name, F8) for name in names], np.int64),
            weights=np.array(method.factors(context.weights), np.float64),
            table=table_of(names[0]),
            out_code=CODES.get(context.output.name, F8),
            to=narrow_format(context.output.name),
            accumulator="f64" if "F64" in names else "f32",
        )

    def merge(
        self, inputs: Sequence[Bits], base: Bits | None, out: Bits, first: int, counters: Counters
    ) -> None:
        self._averager.average(inputs, out, counters)
