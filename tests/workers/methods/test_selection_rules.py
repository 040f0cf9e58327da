"""The rules of selection one by one, on cases small enough to be read."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plait.errors import SpecInvalid
from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.methods import METHODS
from plait_workers.methods.base import TensorContext
from plait_workers.methods.selection import Select, integer_weights, keep_thresholds
from plait_workers.working import working_dtype
from tests.workers.methods import reference

WEIGHT = st.one_of(st.floats(0, 1e300), st.just(0.0), st.floats(0.1, 10), st.integers(0, 5).map(float))
BAD_WEIGHTS = [
    (-1.0, 2.0),
    (math.nan, 1.0),
    (math.inf, 1.0),
    (math.nan,),
    (0.0,),
    (0.0, 0.0),
    (1.0, 2.0**-26),
    (1e300, 1e-300),
    (5e-324, 1.0),
]


class TestIntegerWeights:
    @settings(max_examples=300)
    @given(st.lists(WEIGHT, min_size=1, max_size=20))
    def test_largest_remainders(self, weights: list[float]) -> None:
        assume(any(weights))
        expected = reference.integer_weights(weights)
        if any(w == 0 and weight > 0 for w, weight in zip(expected, weights, strict=True)):
            with pytest.raises(ValueError, match="would never be drawn"):
                integer_weights(weights)
            return
        assert integer_weights(weights) == expected
        assert sum(expected) == (len(weights) if len(set(weights)) == 1 else 2**24)

    def test_equal_weights_are_one_each(self) -> None:
        assert integer_weights([0.3] * 7) == [1] * 7
        assert integer_weights([5.0]) == [1]
        assert integer_weights([5e-324] * 3) == [1] * 3

    def test_ties_go_to_the_lower_index(self) -> None:
        # 2**24 = 16777216 = 3 * 5592405 + 1: three equal parts and a nothing leave one over.
        assert integer_weights([1.0, 1.0, 1.0, 0.0]) == [5592406, 5592405, 5592405, 0]
        assert integer_weights([0.0, 1.0, 1.0, 1.0]) == [0, 5592406, 5592405, 5592405]
        # 2**24 = 7 * 2396745 + 1; remainders 1/7, 2/7 and 4/7.
        assert integer_weights([1.0, 2.0, 4.0]) == [2396745, 4793490, 9586981]

    def test_exact_arithmetic(self) -> None:
        assert integer_weights([2.0**-24, 1 - 2.0**-24]) == [1, 2**24 - 1]
        assert integer_weights([1e308, 1e308, 1e307]) == reference.integer_weights([1e308, 1e308, 1e307])
        assert integer_weights([1.0, 1.0 + 2.0**-52]) == [2**23, 2**23]

    def test_half_a_share_is_enough_if_it_is_among_the_largest_remainders(self) -> None:
        # The floors leave one over, and the smaller weight has the larger remainder.
        small = 0.75 * 2.0**-24
        assert integer_weights([small, 1 - small]) == [1, 2**24 - 1]

    @pytest.mark.parametrize("weights", BAD_WEIGHTS, ids=str)
    def test_bad_weights_are_spec_invalid(self, weights: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="weight"):
            integer_weights(weights)
        (problem,) = Select().check_weights(weights)
        assert isinstance(problem, SpecInvalid)
        assert problem.kind == "spec-invalid"

    def test_good_weights_have_no_problem(self) -> None:
        assert Select().check_weights([1.0, 0.0, 2.0]) == []


class TestThresholds:
    @given(st.integers(1, 4096), st.integers(0, 64), st.data())
    def test_are_n_plus_one_truncated_factors(self, k: int, n: int, data: st.DataObject) -> None:
        changed = data.draw(st.integers(1, k))
        q = ((k - changed) << 32) // k
        expected = q
        for _ in range(n):
            expected = expected * q // 2**32
        found = keep_thresholds(k, n)
        assert len(found) == k + 1
        assert found[changed] == expected < 2**32
        exact = Fraction(k - changed, k) ** (n + 1)
        assert -(n + 2) <= found[changed] - exact * 2**32 <= 0
        assert found[k] == 0

    def test_unlimited_keeps_only_what_nobody_changed(self) -> None:
        assert keep_thresholds(5, -1) == [0] * 6


def one_element(x: int, base: int, dtype: str, resample: int | str = "unlimited") -> tuple[int, list[int]]:
    """Selection of one sub-model, unlimited: it is taken wherever it changed anything."""
    kind = DTYPES[dtype]
    context = TensorContext(
        name="a", inputs=(kind,), base=kind, working=kind, output=kind, weights=(1.0,), seed=0
    )
    out, counters = np.zeros(1, kind.storage), np.zeros(4, np.int64)
    method = Select.model_validate({"resample": resample})
    arrays = [np.array([x], kind.storage)]
    method.merger(context).merge(arrays, np.array([base], kind.storage), out, 0, counters)
    return int(out[0]), counters.tolist()


class TestWhatIsChanged:
    @pytest.mark.parametrize(
        ("dtype", "negative", "nan", "subnormal"),
        [
            ("BF16", 0x8000, 0x7FC0, 1),
            ("F16", 0x8000, 0x7C01, 1),
            ("F32", 1 << 31, 0xFFC00001, 1),
            ("F64", 1 << 63, 0x7FF0000000000001, 1),
            ("F8_E5M2", 0x80, 0x7D, 1),
            ("F8_E4M3", 0x80, 0xFF, 1),
        ],
    )
    def test_floats(self, dtype: str, negative: int, nan: int, subnormal: int) -> None:
        # -0 equals +0: the base's bits stay. Nothing is flushed to zero. NaN differs from itself.
        assert one_element(negative, 0, dtype) == (0, [0, 1, 0, 0])
        assert one_element(0, negative, dtype) == (negative, [0, 1, 0, 0])
        assert one_element(subnormal, 0, dtype) == (subnormal, [1, 0, 0, 0])
        assert one_element(0, negative | subnormal, dtype) == (0, [1, 0, 0, 0])
        assert one_element(nan, nan, dtype) == (nan, [1, 0, 1, 1])
        assert one_element(5, nan, dtype) == (5, [1, 0, 0, 1])

    @pytest.mark.parametrize("dtype", ["F8_E5M2FNUZ", "F8_E4M3FNUZ"])
    def test_floats_with_one_zero(self, dtype: str) -> None:
        assert one_element(0x80, 0x80, dtype) == (0x80, [1, 0, 1, 1])
        assert one_element(0, 0, dtype) == (0, [0, 1, 0, 0])
        assert one_element(0xFF, 0x7F, dtype) == (0xFF, [1, 0, 0, 0])

    def test_powers_of_two(self) -> None:
        assert one_element(0, 0, "F8_E8M0") == (0, [0, 1, 0, 0])
        assert one_element(0, 128, "F8_E8M0") == (0, [1, 0, 0, 0])
        assert one_element(255, 255, "F8_E8M0") == (255, [1, 0, 1, 1])

    @pytest.mark.parametrize("dtype", ["I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"])
    def test_integers(self, dtype: str) -> None:
        top = 1 << (DTYPES[dtype].bits - 1)
        assert one_element(top, 0, dtype) == (top, [1, 0, 0, 0])
        assert one_element(2 * top - 1, 2 * top - 1, dtype) == (2 * top - 1, [0, 1, 0, 0])

    def test_a_payload_survives(self) -> None:
        assert one_element(0x7F800001, 0, "F32") == (0x7F800001, [1, 0, 1, 0])
        assert one_element(0xFFBF, 0, "BF16") == (0xFFBF, [1, 0, 1, 0])


class TestWorkingDtype:
    @pytest.mark.parametrize(
        ("dtypes", "expected"),
        [
            ("BF16 BF16", "BF16"),
            ("BF16 F16", "F32"),
            ("F16 F32", "F32"),
            ("BF16 F64", "F64"),
            ("F32 F64 F16", "F64"),
            ("I32 I32", "I32"),
            ("F8_E4M3 F8_E4M3", "F8_E4M3"),
            ("F8_E4M3 BF16", None),
            ("I32 I64", None),
            ("F32 I32", None),
            ("F8_E4M3 F8_E5M2", None),
            ("BOOL U8", None),
        ],
    )
    def test_is_the_smallest_that_holds_all(self, dtypes: str, expected: str | None) -> None:
        names = dtypes.split()
        found = {working_dtype([DTYPES[name] for name in order]) for order in (names, names[::-1])}
        assert found == {None if expected is None else DTYPES[expected]}


class TestOptions:
    def test_defaults_and_limits(self) -> None:
        assert METHODS["select"] is Select
        assert Select().resample == 1
        assert Select(resample=64).needs_base
        assert not Select(resample=0).needs_base
        for wrong in (-1, 65, 1.0, "1", True, None, "Unlimited"):
            with pytest.raises(ValidationError):
                Select.model_validate({"resample": wrong})
        with pytest.raises(ValidationError):
            Select.model_validate({"resample": 1, "n": 2})

    def test_survives_pickling(self) -> None:
        assert pickle.loads(pickle.dumps(Select(resample="unlimited"))) == Select(resample="unlimited")

    def test_the_law_is_told(self) -> None:
        assert Select(resample=4).describe([2.0, 2.0, 2.0]) == "select, resample 4, p = 1/3 each"
        told = Select(resample="unlimited").describe([1.0, 3.0])
        assert told == "select, resample unlimited, p = 1/4, 3/4"

    def test_opaque_types_are_not_merged(self) -> None:
        assert {name for name, dtype in DTYPES.items() if not Select().can_merge(dtype)} == {
            name for name, dtype in DTYPES.items() if dtype.kind == "opaque"
        }
