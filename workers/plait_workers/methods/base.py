"""What a merge method is: its options and what it does to a stretch of one tensor.

To add a method, write one class in one file of this folder and name it in ``METHODS`` (one line in
``methods/__init__.py``). The class is a pydantic model: its fields are the options that a spec's
``method:`` may have, its ``merger`` does the work. Methods see flat arrays of bit patterns; files,
parts, threads and checksums are not theirs.

All methods so far are elementwise and stream. A method that needs a statistic of a whole tensor (a
threshold, a norm) will declare mergeable partial statistics for a first pass over the same units, and
be given them reduced, through :class:`TensorContext`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from plait.errors import PlaitError
from plait_workers.checkpoint.dtypes import Dtype

Bits = npt.NDArray[np.unsignedinteger]
Counters = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorContext:
    """What a method may know of a tensor.

    Args:
        name: name in the result; it seeds the draw.
        inputs: dtype of each sub-model's tensor.
        base: dtype of the base's, or None if the base is not to be looked at.
        working: the dtype in which sub-models are compared.
        output: the dtype of the result.
        weights: (K,) as in the spec.
        seed: of the spec.
    """

    name: str
    inputs: tuple[Dtype, ...]
    base: Dtype | None
    working: Dtype
    output: Dtype
    weights: tuple[float, ...]
    seed: int


class Merger(Protocol):
    """A method, bound to one tensor. Used by one thread at a time."""

    def merge(
        self, inputs: Sequence[Bits], base: Bits | None, out: Bits, first: int, counters: Counters
    ) -> None:
        """Merge a stretch of elements. The result of an element depends on its index alone.

        Args:
            inputs: K arrays of n bit patterns, each in its own dtype.
            base: n bit patterns of the base, if the context has one.
            out: place for n bit patterns of the output dtype; overlaps no input.
            first: row-major index of the first element in its whole tensor.
            counters: (2 K + 2,) to add to: elements taken from each sub-model; elements that kept
                the base's value; non-finite values of each sub-model; of the base.
        """
        ...


class Method(BaseModel, ABC):
    """Options and behaviour of a method; frozen, strict, picklable."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str

    @property
    @abstractmethod
    def needs_base(self) -> bool:
        """Whether a merge with these options cannot do without a base."""

    @abstractmethod
    def can_merge(self, dtype: Dtype) -> bool:
        """Whether tensors of this dtype are merged; if not, all sources must agree on them."""

    @abstractmethod
    def check_weights(self, weights: Sequence[float]) -> list[PlaitError]:
        """What is wrong with the spec's weights for this method; empty if nothing."""

    @abstractmethod
    def describe(self, weights: Sequence[float]) -> str:
        """The law that is applied, in one line of plain words, for plans and model cards."""

    @abstractmethod
    def merger(self, context: TensorContext) -> Merger:
        """The method, bound to a tensor."""
