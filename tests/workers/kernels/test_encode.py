from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plait_workers.kernels.encode import NARROW, convert, narrow, table_of
from tests.workers.kernels.plain import FORMATS

Bits = npt.NDArray[np.unsignedinteger]
WIDE = ("F16", "BF16", "F32", "F64")
UINT = {16: np.uint16, 32: np.uint32, 64: np.uint64}
ALL_16 = np.arange(1 << 16, dtype=np.uint16)
VALUE_TYPES = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64}
ML_TYPES = {
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
}


def converted(source: Bits, source_name: str, name: str) -> Bits:
    out: Bits = np.empty(len(source), UINT[FORMATS[name].bits])
    convert(source, source_name, out, name)
    return out


def canonical(bits: Bits, name: str) -> Bits:
    """NaNs replaced by their sign with the canonical quiet NaN."""
    form = FORMATS[name]
    nan = np.isnan(bits.view(VALUE_TYPES[name]))
    with_sign = (bits & bits.dtype.type(form.sign_bit)) | bits.dtype.type(form.canonical_nan)
    return np.where(nan, with_sign, bits)


def around(name: str) -> npt.NDArray[np.float64]:
    """Every value of a narrow format, every midpoint of two neighbours, and the doubles beside those."""
    form = FORMATS[name]
    values = form.decode_all(range(form.beyond))
    step = values[-1] - values[-2]
    ladder = np.concatenate((values, [values[-1] + step, values[-1] + 2 * step]))
    ties = (ladder[:-1] + ladder[1:]) / 2  # exact: a double has digits to spare
    points = np.concatenate((ladder, ties, [5e-324, 1e-310, 2.0**-1022, 1e300, math.inf]))
    points = np.concatenate((points, np.nextafter(points, 0), np.nextafter(points, math.inf)))
    return np.concatenate((points, -points))


class TestSixteenBitSources:
    @pytest.mark.parametrize("source", ["F16", "BF16"])
    @pytest.mark.parametrize("name", ["F32", "F64"])
    def test_widening_is_exact(self, source: str, name: str) -> None:
        with np.errstate(invalid="ignore"):
            values = ALL_16.view(VALUE_TYPES[source]).astype(VALUE_TYPES[name])
        assert np.array_equal(
            converted(ALL_16, source, name), canonical(values.view(UINT[FORMATS[name].bits]), name)
        )

    @pytest.mark.parametrize(("source", "name"), [("F16", "BF16"), ("BF16", "F16")])
    def test_across(self, source: str, name: str) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            values = ALL_16.view(VALUE_TYPES[source]).astype(np.float32)
            expected = values.astype(VALUE_TYPES[name]).view(np.uint16)
        assert np.array_equal(converted(ALL_16, source, name), canonical(expected, name))

    @pytest.mark.parametrize("source", ["F16", "BF16"])
    def test_nan_becomes_its_sign_with_the_canonical_one(self, source: str) -> None:
        form = FORMATS[source]
        patterns = ALL_16[(ALL_16 & np.uint16(0x7FFF)) > form.beyond]
        for name, quiet in (("F16", 0x7E00), ("BF16", 0x7FC0), ("F32", 0x7FC00000), ("F64", 0x7FF8 << 48)):
            if name != source:
                out = converted(patterns, source, name)
                signs = (patterns.astype(np.uint64) >> 15) << (FORMATS[name].bits - 1)
                assert np.array_equal(out.astype(np.uint64), signs | np.uint64(quiet))

    @pytest.mark.parametrize("name", WIDE)
    def test_the_same_format_keeps_every_bit(self, name: str) -> None:
        rng = np.random.default_rng(1)
        bits = rng.integers(0, 2 ** FORMATS[name].bits, 5000, UINT[FORMATS[name].bits], endpoint=False)
        bits[:3] = FORMATS[name].canonical_nan + 1, FORMATS[name].beyond + 1, FORMATS[name].sign_bit
        assert np.array_equal(converted(bits, name, name), bits)


class TestNarrowing:
    @pytest.mark.parametrize("name", ["F16", "BF16"])
    def test_f32_around_every_rounding_point(self, name: str) -> None:
        points = around(name)
        with np.errstate(over="ignore"):
            x = points.astype(np.float32)
        x = np.concatenate((x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(math.inf))))
        out = converted(x.view(np.uint32), "F32", name)
        with np.errstate(over="ignore"):
            assert np.array_equal(out, x.astype(VALUE_TYPES[name]).view(np.uint16))
        as_torch = torch.from_numpy(x).to(getattr(torch, {"F16": "float16", "BF16": "bfloat16"}[name]))
        assert np.array_equal(out, as_torch.view(torch.int16).numpy().view(np.uint16))

    @pytest.mark.parametrize("name", ["F16", "BF16"])
    def test_any_f32_pattern(self, name: str) -> None:
        bits = np.random.default_rng(2).integers(0, 2**32, 1 << 20, np.uint32)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = canonical(bits.view(np.float32).astype(VALUE_TYPES[name]).view(np.uint16), name)
        nan = np.isnan(bits.view(np.float32))
        signs = ((bits >> 16) & 0x8000).astype(np.uint16)
        expected = np.where(nan, signs | np.uint16(FORMATS[name].canonical_nan), expected)
        assert np.array_equal(converted(bits, "F32", name), expected)

    @pytest.mark.parametrize("name", NARROW)
    def test_doubles_around_every_rounding_point(self, name: str) -> None:
        form = FORMATS[name]
        points = around(name)
        if len(points) > 12_000:
            keep = np.random.default_rng(3).choice(len(points), 12_000, replace=False)
            points = np.concatenate((points[keep], points[-30:], -points[-30:]))
        for x in points.tolist():
            assert narrow(x, name) == form.encode(x), (name, x.hex())

    @settings(max_examples=400)
    @given(st.integers(0, 2**64 - 1), st.sampled_from(sorted(NARROW)))
    def test_any_double(self, bits: int, name: str) -> None:
        value = float(np.array([bits], np.uint64).view(np.float64)[0])
        assert narrow(value, name) == FORMATS[name].encode(value)

    @settings(max_examples=400)
    @given(st.floats(width=32, allow_nan=False), st.sampled_from(["F16", "BF16", "F32"]), st.integers(-4, 4))
    def test_doubles_beside_singles(self, near: float, name: str, ulps: int) -> None:
        x = np.array([near], np.float64)
        for _ in range(abs(ulps)):
            x = np.nextafter(x, math.copysign(math.inf, ulps))
        assert converted(x.view(np.uint64), "F64", name)[0] == FORMATS[name].encode(float(x[0]))

    def test_one_rounding_not_two(self) -> None:
        # Just above a tie of bfloat16, by less than float32 can tell: by way of float32 it would tie.
        x = np.array([1 + 2.0**-8 + 2.0**-40, -(1 + 2.0**-8 + 2.0**-40)], np.float64)
        assert converted(x.view(np.uint64), "F64", "BF16").tolist() == [0x3F81, 0xBF81]
        twice = x.astype(np.float32).view(np.uint32)
        assert converted(twice, "F32", "BF16").tolist() == [0x3F80, 0xBF80]

    @pytest.mark.parametrize("name", ["F16", "F32"])
    def test_doubles_as_numpy(self, name: str) -> None:
        rng = np.random.default_rng(4)
        spread = np.ldexp(rng.standard_normal(1 << 17), rng.integers(-170, 140, 1 << 17))
        x = np.concatenate((spread, np.ldexp(rng.standard_normal(1 << 16), rng.integers(-30, 18, 1 << 16))))
        with np.errstate(over="ignore", under="ignore"):
            expected = x.astype(VALUE_TYPES[name]).view(UINT[FORMATS[name].bits])
        assert np.array_equal(converted(x.view(np.uint64), "F64", name), expected)

    @pytest.mark.parametrize("name", WIDE[:3])
    def test_double_nans(self, name: str) -> None:
        form = FORMATS[name]
        patterns = np.array(
            [0x7FF0000000000001, 0xFFF0000000000001, 0x7FFFFFFFFFFFFFFF, 0xFFF8 << 48], np.uint64
        )
        quiet = form.canonical_nan
        expected = [quiet, quiet | form.sign_bit, quiet, quiet | form.sign_bit]
        assert converted(patterns, "F64", name).tolist() == expected

    @pytest.mark.parametrize("name", ["F16", "BF16", "F32"])
    def test_overflow_and_subnormals(self, name: str) -> None:
        form = FORMATS[name]
        largest, least = Fraction(form.decode(form.beyond - 1)), Fraction(form.decode(1))
        half = (largest - Fraction(form.decode(form.beyond - 2))) / 2
        points = [
            largest + half,
            largest + half * Fraction(999, 1000),
            least,
            least / 2,
            least / 2 * 3,
            least * 5,
        ]
        x = np.array([float(point) for point in points])
        found = converted(x.view(np.uint64), "F64", name).tolist()
        assert found == [form.beyond, form.beyond - 1, 1, 0, 2, 5]
        found = converted((-x).view(np.uint64), "F64", name).tolist()
        assert found == [form.sign_bit | digits for digits in (form.beyond, form.beyond - 1, 1, 0, 2, 5)]


class TestEightBits:
    @pytest.mark.parametrize("name", [*sorted(set(NARROW) - {"F16", "BF16"}), "F8_E8M0"])
    def test_tables(self, name: str) -> None:
        theirs = {**ML_TYPES, "F8_E8M0": ml_dtypes.float8_e8m0fnu}[name]
        expected = np.arange(256, dtype=np.uint8).view(theirs).astype(np.float64)
        table = table_of(name)
        assert np.array_equal(table, expected, equal_nan=True)
        assert np.array_equal(np.signbit(table[table == 0]), np.signbit(expected[expected == 0]))
        if name in FORMATS:
            assert np.array_equal(table, FORMATS[name].decode_all(range(256)), equal_nan=True)

    @pytest.mark.parametrize("name", ["F16", "BF16", "F32", "F64", "I8", "U8"])
    def test_other_formats_have_no_table(self, name: str) -> None:
        assert len(table_of(name)) == 0

    @pytest.mark.parametrize("source", ["F16", "BF16"])
    @pytest.mark.parametrize("name", sorted(set(NARROW) - {"F16", "BF16"}))
    def test_from_every_16_bit_value_as_ml_dtypes(self, source: str, name: str) -> None:
        values = ALL_16.view(VALUE_TYPES[source]).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = values.astype(ML_TYPES[name]).view(np.uint8)
        form = FORMATS[name]
        found = np.array([narrow(float(x), name) for x in values], np.uint8)
        number = ~np.isnan(values)
        assert np.array_equal(found[number], expected[number])
        signs = np.where(np.signbit(values[~number]), form.sign_bit, 0)
        assert np.array_equal(found[~number], (signs | form.canonical_nan).astype(np.uint8))

    @pytest.mark.parametrize("name", sorted(set(NARROW) - {"F16", "BF16"}))
    def test_a_round_trip_changes_no_value(self, name: str) -> None:
        table = table_of(name)
        patterns = [pattern for pattern in range(256) if not math.isnan(table[pattern])]
        assert [narrow(table[pattern], name) for pattern in patterns] == patterns
