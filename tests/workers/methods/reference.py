"""Selection as its definition reads, one element at a time, and Eq. 3 as its paper has it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests.workers.kernels.plain import FORMATS, uv_of

KEEP = -1
Resample = int | str


@functools.lru_cache(maxsize=1 << 18)
def value(dtype: str, pattern: int) -> float | int:
    """The number that a pattern stands for; two's complement does not matter where only equality counts."""
    if dtype == "F8_E8M0":
        return float("nan") if pattern == 255 else 2.0 ** (pattern - 127)
    return FORMATS[dtype].decode(pattern) if dtype in FORMATS else pattern


@functools.lru_cache(maxsize=1 << 18)
def converted(pattern: int, source: str, target: str) -> int:
    return pattern if source == target else FORMATS[target].encode(FORMATS[source].decode(pattern))


def finite(dtype: str, pattern: int) -> bool:
    number = value(dtype, pattern)
    return isinstance(number, int) or abs(number) < float("inf")


def integer_weights(weights: Sequence[float]) -> list[int]:
    """By hand: floors, then one more for each largest remainder in turn."""
    if all(weight == weights[0] for weight in weights):
        return [1] * len(weights)
    total = sum(map(Fraction, weights))
    shares = [Fraction(weight) / total * 2**24 for weight in weights]
    result = [share.numerator // share.denominator for share in shares]
    remainders = [share - floor for share, floor in zip(shares, result, strict=True)]
    while sum(result) < 2**24:
        largest = remainders.index(max(remainders))  # the first of equals
        result[largest] += 1
        remainders[largest] = Fraction(-1)
    return result


def pick(
    values: Sequence[float | int], base: float | int | None, w: Sequence[int], n: Resample, u: int, v: int
) -> int:
    """Which sub-model an element is taken from, or KEEP: "One element" of the definition, line by line."""
    s = sum(w)
    if base is None or n == 0:
        return _at(list(range(len(w))), w, u * s >> 32)
    changed = [i for i, x in enumerate(values) if x != base and w[i] > 0]
    m = sum(w[i] for i in changed)
    if m == 0:
        return KEEP
    q = ((s - m) << 32) // s
    threshold = q
    for _ in range(n if isinstance(n, int) else 0):
        threshold = threshold * q >> 32
    if isinstance(n, int) and v < threshold:
        return KEEP
    return _at(changed, w, u * m >> 32)


def _at(order: list[int], w: Sequence[int], t: int) -> int:
    upto = 0
    for i in order:
        upto += w[i]
        if upto > t:
            return i
    raise AssertionError("beyond the sum of the weights")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stretch of one tensor in all sources, as bit patterns."""

    name: str
    seed: int
    first: int
    dtypes: tuple[str, ...]
    inputs: tuple[npt.NDArray[np.unsignedinteger], ...]
    base_dtype: str | None
    base: npt.NDArray[np.unsignedinteger] | None
    working: str
    output: str
    weights: tuple[float, ...]
    resample: Resample


def select(case: Case) -> tuple[list[int], list[int]]:
    """The result's bit patterns, and the (2 K + 2,) counters."""
    k, w = len(case.inputs), integer_weights(case.weights)
    counters = [0] * (2 * k + 2)
    used = case.base is not None and case.resample != 0
    out = []
    for j in range(len(case.inputs[0])):
        u, v = uv_of(case.seed, case.name, case.first + j)
        bits = [
            converted(int(x[j]), dtype, case.working)
            for x, dtype in zip(case.inputs, case.dtypes, strict=True)
        ]
        for i, pattern in enumerate(bits):
            counters[k + 1 + i] += not finite(case.working, pattern)
        base = None
        if used:
            assert case.base is not None
            assert case.base_dtype is not None
            base = converted(int(case.base[j]), case.base_dtype, case.working)
            counters[2 * k + 1] += not finite(case.working, base)
        values = [value(case.working, pattern) for pattern in bits]
        i = pick(values, None if base is None else value(case.working, base), w, case.resample, u, v)
        counters[k if i == KEEP else i] += 1
        taken = base if i == KEEP else bits[i]
        assert taken is not None
        out.append(converted(taken, case.working, case.output))
    return out, counters


def law(p: Sequence[Fraction], changed: Sequence[bool], n: int) -> dict[int, Fraction]:
    """The exact law of Eq. 3 by walking its levels: what comes out, with which probability.

    An unchanged sub-model's value is the base's, so that taking it at the last level is KEEP.
    """
    found: dict[int, Fraction] = {}
    reach = Fraction(1)
    for level in range(n + 1):
        unchanged = Fraction(0)
        for i, probability in enumerate(p):
            if changed[i]:
                found[i] = found.get(i, Fraction(0)) + reach * probability
            else:
                unchanged += probability
        reach *= unchanged
        if level == n:
            found[KEEP] = reach
    return found


def simulate(
    rng: np.random.Generator, p: Sequence[float], changed: Sequence[bool], n: int, count: int
) -> npt.NDArray[np.int64]:
    """Eq. 3 played literally ``count`` times: draw, look, draw again."""
    result = np.empty(count, np.int64)
    cumulated = np.cumsum(p)
    for element in range(count):
        for _level in range(n + 1):
            i = min(int(np.searchsorted(cumulated, rng.random(), side="right")), len(p) - 1)
            if changed[i]:
                break
        result[element] = i if changed[i] else KEEP
    return result
