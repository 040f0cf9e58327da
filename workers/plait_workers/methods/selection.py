"""``select``: every element is taken from one sub-model, drawn at random (Eq. 2, Eq. 3).

Source: "Mitigating Training Imbalance in LLM Fine-Tuning via Selective Parameter Merging",
arXiv 2410.03743. With ``resample: n`` an element whose drawn sub-model left the base's value
unchanged is drawn again, n times at most; the kernel applies the exact law of that loop in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from plait.errors import PlaitError, SpecInvalid
from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.kernels.encode import convert
from plait_workers.kernels.forms import form_of
from plait_workers.kernels.philox import tensor_key
from plait_workers.kernels.select import BlindLaw, EqualLaw, Law, Stretch, WeightedLaw
from plait_workers.methods.base import Bits, Counters, Merger, Method, TensorContext

TOTAL: Final = 1 << 24
MAX_MODELS: Final = 4096
MAX_RESAMPLE: Final = 64


def integer_weights(weights: Sequence[float]) -> list[int]:
    """Weights as integers W_i; p_i = W_i / sum(W).

    All equal: 1 each. Else the sum is 2**24: floors of p_i * 2**24, then one more for the largest
    remainders (ties: the lower index), in exact rational arithmetic on the given doubles.

    Raises:
        ValueError: a weight is negative or not finite, all are 0, or a positive one would become 0.
    """
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError("weights must be finite and not negative")
    if not any(weights):
        raise ValueError("at least one weight must be positive")
    if len(set(weights)) == 1:
        return [1] * len(weights)
    exact = [Fraction(weight) for weight in weights]
    shares = [weight * TOTAL / sum(exact) for weight in exact]
    floors = [math.floor(share) for share in shares]
    missing = TOTAL - sum(floors)
    by_remainder = sorted(range(len(shares)), key=lambda i: (floors[i] - shares[i], i))
    for i in by_remainder[:missing]:
        floors[i] += 1
    if any(floor == 0 and weight > 0 for floor, weight in zip(floors, weights, strict=True)):
        raise ValueError("a positive weight is below 2**-24 of the sum and would never be drawn")
    return floors


def keep_thresholds(num_models: int, resample: int) -> list[int]:
    """T by the number M of changed sub-models, M = 0 .. K, for equal weights: the base stays if v < T.

    ``resample`` is n, or -1 for unlimited.
    """
    thresholds = [0]
    for changed in range(1, num_models + 1):
        q = ((num_models - changed) << 32) // num_models
        threshold = q
        for _ in range(resample):
            threshold = (threshold * q) >> 32
        thresholds.append(0 if resample < 0 else threshold)
    return thresholds


class Select(Method):
    """Options of ``select``: ``resample`` is n of Eq. 3, or "unlimited"."""

    name: Literal["select"] = "select"
    resample: Annotated[int, Field(ge=0, le=MAX_RESAMPLE)] | Literal["unlimited"] = 1

    @property
    def needs_base(self) -> bool:
        """n = 0 never looks at the base."""
        return self.resample != 0

    def can_merge(self, dtype: Dtype) -> bool:
        """A selection is an exact copy: all but sub-byte and complex dtypes."""
        return dtype.kind != "opaque"

    def check_weights(self, weights: Sequence[float]) -> list[PlaitError]:
        """The rules of :func:`integer_weights`, and at most 4096 of them."""
        if len(weights) > MAX_MODELS:
            return [SpecInvalid(f"models: at most {MAX_MODELS}", found=str(len(weights)))]
        try:
            integer_weights(weights)
        except ValueError as error:
            return [SpecInvalid(f"models: {error}", found=f"weights {list(weights)[:8]}")]
        return []

    def describe(self, weights: Sequence[float]) -> str:
        """n and the exact probabilities."""
        integers = integer_weights(weights)
        if len(set(integers)) == 1:
            law = f"p = 1/{len(integers)} each"
        else:
            law = "p = " + ", ".join(str(Fraction(integer, TOTAL)) for integer in integers)
        return f"select, resample {self.resample}, {law}"

    def merger(self, context: TensorContext) -> Merger:
        """Bound to a tensor: its key, thresholds, and conversions to the working dtype."""
        return _SelectMerger(self, context)


class _SelectMerger:
    def __init__(self, method: Select, context: TensorContext) -> None:
        self._context = context
        self._blind = method.resample == 0 or context.base is None
        self._key = tensor_key(context.seed, context.name)
        self._form = form_of(context.working)
        self._law = self._law_of(integer_weights(context.weights), method.resample)
        self._spare: dict[int, Bits] = {}

    def _law_of(self, weights: list[int], resample: int | Literal["unlimited"]) -> Law:
        if self._blind:
            return BlindLaw(weights)
        rounds = -1 if resample == "unlimited" else resample
        if set(weights) == {1}:
            return EqualLaw(keep_thresholds(len(weights), rounds))
        return WeightedLaw(weights, rounds)

    def merge(
        self, inputs: Sequence[Bits], base: Bits | None, out: Bits, first: int, counters: Counters
    ) -> None:
        context = self._context
        direct = context.output.name == context.working.name
        num_models = len(inputs)
        target = out if direct else self._place(num_models + 1, len(out))
        stretch = Stretch(
            inputs=[self._in_working(i, x, context.inputs[i].name) for i, x in enumerate(inputs)],
            out=target,
            first=first,
            key=self._key,
            form=self._form,
            stats=counters,
        )
        if self._blind:
            self._law.select(stretch, None)
        else:
            assert base is not None
            assert context.base is not None
            self._law.select(stretch, self._in_working(num_models, base, context.base.name))
        if not direct:
            convert(target, context.working.name, out, context.output.name)

    def _in_working(self, source: int, bits: Bits, dtype: str) -> Bits:
        if dtype == self._context.working.name:
            return bits
        converted = self._place(source, len(bits))
        convert(bits, dtype, converted, self._context.working.name)
        return converted

    def _place(self, number: int, count: int) -> Bits:
        """Room for ``count`` working values, used again: fresh memory costs more than the conversion."""
        spare = self._spare.get(number)
        if spare is None or len(spare) < count:
            spare = self._spare[number] = np.empty(count, self._context.working.storage)
        return spare[:count]
