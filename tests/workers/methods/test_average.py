from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.errors import SpecInvalid
from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.methods import METHODS
from plait_workers.methods.average import Average
from plait_workers.methods.base import TensorContext
from plait_workers.working import working_dtype
from tests.workers.kernels.plain import FORMATS

WIDE = ("BF16", "F16", "F32", "F64")
EIGHT = ("F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ")
Bits = npt.NDArray[Any]


def run(
    dtypes: Sequence[str], inputs: Sequence[Bits], weights: Sequence[float], output: str, **options: Any
) -> tuple[list[int], list[int]]:
    """The product's bit patterns and counters."""
    working = working_dtype([DTYPES[dtype] for dtype in dtypes])
    assert working is not None
    context = TensorContext(
        name="a",
        inputs=tuple(DTYPES[dtype] for dtype in dtypes),
        base=None,
        working=working,
        output=DTYPES[output],
        weights=tuple(weights),
        seed=0,
    )
    out = np.zeros(len(inputs[0]), DTYPES[output].storage)
    counters = np.zeros(2 * len(inputs) + 2, np.int64)
    Average.model_validate(options).merger(context).merge(list(inputs), None, out, 0, counters)
    return out.tolist(), counters.tolist()


def reference(
    dtypes: Sequence[str],
    inputs: Sequence[Bits],
    weights: Sequence[float],
    output: str,
    normalize: bool = True,
) -> list[int]:
    """a = fl(a + fl(w * x)), one NumPy scalar after another, then one exact rounding."""
    kind: Any = np.float64 if "F64" in dtypes else np.float32
    total = float(sum(map(Fraction, weights))) if normalize else 1.0
    result = []
    with np.errstate(all="ignore"):
        for j in range(len(inputs[0])):
            a = kind(0)
            for dtype, x, weight in zip(dtypes, inputs, weights, strict=True):
                product = kind(weight / total) * kind(FORMATS[dtype].decode(int(x[j])))
                a = kind(a + kind(product))
            result.append(FORMATS[output].encode(float(a)))
    return result


def without_nan_signs(patterns: Sequence[int], dtype: str) -> list[int]:
    """The sign of a sum that is no number is the processor's choice; its digits are not."""
    form = FORMATS[dtype]
    return [
        form.canonical_nan if pattern & ~form.sign_bit == form.canonical_nan else pattern
        for pattern in patterns
    ]


def random_bits(rng: np.random.Generator, dtype: str, count: int, kind: str) -> Bits:
    form, storage = FORMATS[dtype], DTYPES[dtype].storage
    anything = rng.integers(0, 2**form.bits, count, storage)
    if kind == "anything":
        return anything
    values = rng.standard_normal(count) * (1e-3 if kind == "small" else 1.0)
    return np.array([form.encode(float(x)) for x in values], storage)


@st.composite
def cases(draw: Callable[..., Any]) -> tuple[list[str], list[Bits], list[float], str]:
    k = draw(st.integers(1, 9))
    if draw(st.booleans()):
        dtypes = draw(st.lists(st.sampled_from(WIDE), min_size=k, max_size=k))
        output = draw(st.sampled_from(WIDE))
    else:
        dtypes = [draw(st.sampled_from(EIGHT))] * k
        output = dtypes[0]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["anything", "numbers", "small"]))
    count = draw(st.sampled_from([1, 7, 60]))
    weights = draw(
        st.one_of(
            st.just([1.0] * k),
            st.lists(st.floats(0.01, 100), min_size=k, max_size=k),
            st.lists(st.sampled_from([0.0, 1.0, -0.25, 0.1]), min_size=k, max_size=k).filter(
                lambda w: math.fsum(w) != 0
            ),
        )
    )
    return dtypes, [random_bits(rng, dtype, count, kind) for dtype in dtypes], weights, output


@settings(max_examples=300)
@given(cases(), st.booleans())
def test_is_the_definition_bit_for_bit(
    case: tuple[list[str], list[Bits], list[float], str], normalize: bool
) -> None:
    dtypes, inputs, weights, output = case
    found, _ = run(dtypes, inputs, weights, output, normalize=normalize)
    expected = reference(dtypes, inputs, weights, output, normalize)
    assert without_nan_signs(found, output) == without_nan_signs(expected, output)


@settings(max_examples=60)
@given(cases(), st.data())
def test_does_not_depend_on_how_it_is_cut(
    case: tuple[list[str], list[Bits], list[float], str], data: st.DataObject
) -> None:
    dtypes, inputs, weights, output = case
    many = [np.tile(x, 4500 // len(x) + 1)[:4500] for x in inputs]
    cuts = sorted({0, 4500, *data.draw(st.lists(st.integers(0, 4500), max_size=4))})
    pieces = [run(dtypes, [x[a:b].copy() for x in many], weights, output) for a, b in pairwise(cuts)]
    whole, counters = run(dtypes, many, weights, output)
    assert [bits for piece, _ in pieces for bits in piece] == whole
    assert np.array_equal(np.sum([counted for _, counted in pieces], axis=0), counters)


@settings(max_examples=100)
@given(cases())
def test_counts_what_is_not_finite(case: tuple[list[str], list[Bits], list[float], str]) -> None:
    dtypes, inputs, weights, output = case
    k = len(dtypes)
    _, counters = run(dtypes, inputs, weights, output)
    assert counters[: k + 1] == [0] * (k + 1)  # nothing is taken from one source
    expected = [
        int((~np.isfinite(FORMATS[dtype].decode_all(x))).sum())
        for dtype, x in zip(dtypes, inputs, strict=True)
    ]
    assert [*counters[k + 1 :]] == [*expected, 0]


@pytest.mark.parametrize("output", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("k", [2, 5, 20])
def test_error_bound(dtype: str, output: str, k: int) -> None:
    """Half a unit in the last place plus (2 K + 2) 2**-24 times the sum of magnitudes."""
    rng = np.random.default_rng(k)
    inputs = [random_bits(rng, dtype, 400, "numbers") for _ in range(k)]
    weights = rng.uniform(0.1, 3, k).tolist()
    found, _ = run([dtype] * k, inputs, weights, output)
    total, form = sum(map(Fraction, weights)), FORMATS[output]
    for j, pattern in enumerate(found):
        terms = [
            Fraction(weight) / total * Fraction(FORMATS[dtype].decode(int(x[j])))
            for weight, x in zip(weights, inputs, strict=True)
        ]
        result = form.decode(pattern)
        unit = Fraction(2) ** (math.frexp(result)[1] - 1 - form.mantissa)
        # The rounding is of a number that is itself a little off: the unit may be its neighbour's.
        bound = unit / 2 + Fraction(2 * k + 2, 2**24) * sum(map(abs, terms))
        assert abs(Fraction(result) - sum(terms)) <= bound


def test_no_fused_multiply_add() -> None:
    """0.5 (1 + 2**-23) (1 - 2**-23) - 0.5 is -2**-47 if fused, and 0 with two roundings."""
    x = np.array([1 + 2.0**-23, -1.0], np.float32)
    weight = 1 - 2.0**-23
    arrays = [np.full(100, x[1], np.float32).view(np.uint32), np.full(100, x[0], np.float32).view(np.uint32)]
    found, _ = run(["F32", "F32"], arrays, [1.0, weight], "F32", normalize=False)
    assert set(found) == {0}


def test_one_rounding_at_the_end() -> None:
    """From doubles straight to bfloat16: by way of float32 the first would tie to even."""
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8], np.float64).view(np.uint64)
    found, _ = run(["F64"], [x], [1.0], "BF16")
    assert found == [0x3F81, 0x3F80]


def test_weights_are_rounded_once() -> None:
    """1/3 in single precision; and a sum that would lose its last digits if it were added in order."""
    one = np.array([1.0], np.float32).view(np.uint32)
    assert run(["F32"], [one], [1 / 3], "F32", normalize=False)[0] == [0x3EAAAAAB]
    weights = [2.0**53, 1.0, 1.0, -(2.0**53)]
    ones = [one] * 4
    with_exact_sum, _ = run(["F32"] * 4, ones, weights, "F32")
    assert with_exact_sum == reference(["F32"] * 4, ones, weights, "F32")


def test_a_sum_begins_at_plus_zero() -> None:
    negative_zero = np.array([0x8000], np.uint16)
    assert run(["BF16", "BF16"], [negative_zero] * 2, [1.0, 1.0], "BF16")[0] == [0]


@pytest.mark.parametrize("dtype", [*WIDE, "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ"])
@pytest.mark.parametrize("output", WIDE)
def test_nan_is_canonical(dtype: str, output: str) -> None:
    storage = DTYPES[dtype].storage
    form = FORMATS[dtype]
    nan = form.canonical_nan if form.fnuz or not form.has_infinity else form.beyond + 1
    x, y = np.full(70, nan, storage), np.full(70, form.encode(1.0), storage)
    for inputs in ([x, y], [y, x], [x, x]):
        found, counters = run([dtype] * 2, inputs, [1.0, 2.0], output)
        assert set(without_nan_signs(found, output)) == {FORMATS[output].canonical_nan}
        assert counters[3:5] == [70 * (z is x) for z in inputs]


class TestOptions:
    def test_merges_floats_only(self) -> None:
        assert METHODS["average"] is Average
        assert {name for name, dtype in DTYPES.items() if Average().can_merge(dtype)} == {*WIDE, *EIGHT}
        assert not Average().needs_base

    @pytest.mark.parametrize("normalize", [True, False])
    @pytest.mark.parametrize(
        "weights",
        [
            (math.nan, 1.0),
            (math.inf, 1.0),
            (1.0, -1.0),
            (0.0, 0.0),
            (1e16, 1.0, -1e16, -1.0),  # added in order the sum would be -1
            (1e308, 1e308),  # the sum overflows
        ],
        ids=str,
    )
    def test_bad_weights(self, weights: tuple[float, ...], normalize: bool) -> None:
        (problem,) = Average(normalize=normalize).check_weights(weights)
        assert isinstance(problem, SpecInvalid)

    def test_good_weights(self) -> None:
        for weights in ((1.0, -0.5), (1e16, 1.0, -1e16), (0.0, 2.0), (5e-324, 5e-324)):
            assert Average().check_weights(weights) == []
            assert all(map(math.isfinite, Average().factors(weights)))
        (problem,) = Average().check_weights([1e300, -1e300, 1e-300])  # a factor of 1e600
        assert isinstance(problem, SpecInvalid)

    def test_the_factors_are_told(self) -> None:
        assert Average().describe([1.0, 1.0]) == "average, w = 0.5 each"
        assert Average(normalize=False).describe([1.0, 2.0]) == "average, w = 1, 2"
