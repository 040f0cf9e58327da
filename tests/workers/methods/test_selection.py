from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.methods.base import TensorContext
from plait_workers.methods.selection import Select
from plait_workers.working import working_dtype
from tests.workers.kernels.plain import FORMATS
from tests.workers.methods.reference import Case, Resample, select

ALONE = [name for name, dtype in DTYPES.items() if dtype.kind != "opaque"]
FLOATS = ("BF16", "F16", "F32", "F64")
RESAMPLES: tuple[Resample, ...] = (0, 1, 4, 64, "unlimited")
Bits = npt.NDArray[Any]


def palette(dtype: str, rng: np.random.Generator) -> Bits:
    """Patterns that meet each other often: zeros, subnormals, infinities, NaNs, extremes, a few others."""
    width = DTYPES[dtype].bits
    edges = [0, 1, 2, 2 ** (width - 1), 2 ** (width - 1) + 1, 2**width - 1, 2 ** (width - 1) - 1]
    if dtype in FORMATS:
        form = FORMATS[dtype]
        digits = [form.beyond - 1, form.beyond, form.canonical_nan, form.beyond + 1, 1 << form.mantissa]
        edges += [*digits, *(pattern ^ form.sign_bit for pattern in digits)]
    if dtype == "BOOL":
        edges = [0, 1]
    storage = DTYPES[dtype].storage
    assert storage is not None
    common = rng.integers(0, 2 if dtype == "BOOL" else 2**width, 12, storage)
    return np.concatenate((np.array([edge % 2**width for edge in edges], storage), common))


def patterns(dtype: str, rng: np.random.Generator, count: int, edges: float) -> Bits:
    """Mostly ordinary numbers, or mostly edges."""
    known = palette(dtype, rng)
    ordinary = known[-12:]
    return np.where(rng.random(count) < edges, rng.choice(known, count), rng.choice(ordinary, count))


def make_case(
    rng: np.random.Generator,
    *,
    dtypes: tuple[str, ...],
    base_dtype: str | None,
    count: int,
    resample: Resample = 1,
    weights: tuple[float, ...] | None = None,
    first: int = 0,
    output: str | None = None,
    edges: float = 0.3,
    name: str = "layers.0.weight",
    seed: int = 1,
) -> Case:
    working = working_dtype([DTYPES[dtype] for dtype in dtypes])
    assert working is not None
    base = None if base_dtype is None else patterns(base_dtype, rng, count, edges)
    inputs = []
    for dtype in dtypes:
        x = patterns(dtype, rng, count, edges)
        if base is not None and base_dtype == dtype:
            x = np.where(rng.random(count) < 0.5, base, x)
        inputs.append(x)
    return Case(
        name=name,
        seed=seed,
        first=first,
        dtypes=dtypes,
        inputs=tuple(inputs),
        base_dtype=base_dtype,
        base=base,
        working=working.name,
        output=output or working.name,
        weights=weights or (1.0,) * len(dtypes),
        resample=resample,
    )


def run(case: Case, start: int = 0, stop: int | None = None, **changes: Any) -> tuple[list[int], list[int]]:
    """The product's result for elements [start, stop) of the case, and its counters."""
    context = TensorContext(
        name=changes.get("name", case.name),
        inputs=tuple(DTYPES[dtype] for dtype in case.dtypes),
        base=None if case.base_dtype is None else DTYPES[case.base_dtype],
        working=DTYPES[case.working],
        output=DTYPES[case.output],
        weights=case.weights,
        seed=changes.get("seed", case.seed),
    )
    inputs = [x[start:stop].copy() for x in case.inputs]
    base = None if case.base is None else case.base[start:stop].copy()
    out = np.zeros(len(inputs[0]), DTYPES[case.output].storage)
    counters = np.zeros(2 * len(inputs) + 2, np.int64)
    method = Select.model_validate({"resample": case.resample})
    method.merger(context).merge(inputs, base, out, case.first + start, counters)
    assert all(np.array_equal(x, y[start:stop]) for x, y in zip(inputs, case.inputs, strict=True))
    return out.tolist(), counters.tolist()


FIRSTS = st.one_of(
    st.integers(0, 9), st.integers(2**33 - 5000, 2**33 + 5000), st.integers(0, 2**45), st.just(3 * 2**33 - 1)
)


@st.composite
def weights_of(draw: Callable[..., Any], k: int) -> tuple[float, ...]:
    kind = draw(st.sampled_from(["equal", "equal", "unequal", "with zeros", "almost equal"]))
    if kind == "equal" or k == 1:
        return (draw(st.sampled_from([1.0, 0.1, 3.0])),) * k
    if kind == "almost equal":
        return (1.0, *(1.0 + 2.0**-52 for _ in range(k - 1)))
    own = draw(st.lists(st.floats(0.001, 1000), min_size=k, max_size=k))
    zeros = draw(st.integers(1, k - 1)) if kind == "with zeros" else 0
    return tuple(0.0 if i < zeros else weight for i, weight in enumerate(own))


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    k = draw(st.integers(1, 9))
    mixed = draw(st.booleans())
    if mixed:
        dtypes = tuple(draw(st.lists(st.sampled_from(FLOATS), min_size=k, max_size=k)))
        base_dtype = draw(st.sampled_from(FLOATS))
    else:
        dtypes = (draw(st.sampled_from(ALONE)),) * k
        base_dtype = draw(st.sampled_from(FLOATS)) if dtypes[0] in FLOATS else dtypes[0]
    resample = draw(st.sampled_from(RESAMPLES))
    return make_case(
        np.random.default_rng(draw(st.integers(0, 2**32))),
        dtypes=dtypes,
        base_dtype=None if resample == 0 and draw(st.booleans()) else base_dtype,
        count=draw(st.sampled_from([1, 2, 3, 40, 41, 200])),
        resample=resample,
        weights=draw(weights_of(k)),
        first=draw(FIRSTS),
        output=draw(st.sampled_from(FLOATS)) if dtypes[0] in FLOATS and draw(st.booleans()) else None,
        edges=draw(st.sampled_from([0.0, 0.02, 0.5])),
        name=draw(st.sampled_from(["a", "model.layers.17.mlp.down_proj.weight", "été"])),
        seed=draw(st.sampled_from([0, 1, 2**64 - 1])),
    )


@settings(max_examples=500)
@given(cases())
def test_is_the_definition_bit_for_bit(case: Case) -> None:
    assert run(case) == select(case)


@pytest.mark.parametrize("dtype", ALONE)
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.0, 3.0, 0.5)], ids=["equal", "unequal"])
@pytest.mark.parametrize("resample", [0, 1, "unlimited"])
def test_every_dtype_over_several_tiles(
    dtype: str, weights: tuple[float, ...] | None, resample: Resample
) -> None:
    """4,500 elements: two whole tiles and a piece; numbers that are not finite lie in one of them only."""
    rng = np.random.default_rng(len(dtype) + DTYPES[dtype].bits)
    options: dict[str, Any] = {
        "dtypes": (dtype,) * 5,
        "base_dtype": dtype,
        "resample": resample,
        "weights": weights,
    }
    case = make_case(rng, count=4500, first=7, edges=0.0, **options)
    edge = make_case(rng, count=1000, first=7, edges=0.7, **options)
    for x, y in zip((*case.inputs, case.base), (*edge.inputs, edge.base), strict=True):
        assert x is not None
        assert y is not None
        x[2000:3000] = y
    assert run(case) == select(case)


@pytest.mark.parametrize("dtype", sorted(FORMATS))
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 3.0)], ids=["equal", "unequal"])
@pytest.mark.parametrize("spoilt", [False, True])
def test_numbers_on_both_sides_of_two(dtype: str, weights: tuple[float, ...] | None, spoilt: bool) -> None:
    """The exponents of 1.0 and 2.0 have all bits together, as an infinity has them alone."""
    form, rng = FORMATS[dtype], np.random.default_rng(2)
    case = make_case(rng, dtypes=(dtype,) * 3, base_dtype=dtype, count=700, resample=4, weights=weights)
    assert case.base is not None
    for source in (*case.inputs, case.base):
        kind = source.dtype.type
        exponents = rng.integers(form.bias, form.bias + 2, len(source)).astype(kind)
        source[:] &= kind(form.sign_bit | ((1 << form.mantissa) - 1))
        source[:] |= exponents << kind(form.mantissa)
    if spoilt:
        case.inputs[1][300], case.base[301] = form.beyond, form.canonical_nan
    assert run(case) == select(case)


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("weights", [None, tuple(1.0 + i % 7 for i in range(20))], ids=["equal", "unequal"])
def test_twenty_models(resample: Resample, weights: tuple[float, ...] | None) -> None:
    rng = np.random.default_rng(20)
    dtypes = ("BF16",) * 20
    for edges in (0.0, 0.3):
        case = make_case(
            rng, dtypes=dtypes, base_dtype="F32", count=2100, resample=resample, weights=weights, edges=edges
        )
        assert run(case) == select(case)


@settings(max_examples=100)
@given(cases(), st.data())
def test_does_not_depend_on_how_it_is_cut(case: Case, data: st.DataObject) -> None:
    count = len(case.inputs[0])
    cuts = sorted({0, count, *data.draw(st.lists(st.integers(0, count), max_size=4))})
    pieces = [run(case, a, b) for a, b in pairwise(cuts)]
    whole, counters = run(case)
    assert [bits for piece, _ in pieces for bits in piece] == whole
    assert np.array_equal(np.sum([counted for _, counted in pieces], axis=0), counters)


@settings(max_examples=100)
@given(cases())
def test_every_element_is_counted_once(case: Case) -> None:
    _, counters = run(case)
    k = len(case.inputs)
    assert sum(counters[: k + 1]) == len(case.inputs[0])
    assert all(counters[i] == 0 for i, weight in enumerate(case.weights) if weight == 0)


def test_counters_are_added_to() -> None:
    case = make_case(np.random.default_rng(1), dtypes=("F32",) * 3, base_dtype="F32", count=100)
    context = TensorContext(
        name="a",
        inputs=(DTYPES["F32"],) * 3,
        base=DTYPES["F32"],
        working=DTYPES["F32"],
        output=DTYPES["F32"],
        weights=(1.0,) * 3,
        seed=0,
    )
    merger, counters = Select().merger(context), np.arange(8)
    out = np.empty(100, np.uint32)
    merger.merge(list(case.inputs), case.base, out, 0, counters)
    once = counters - np.arange(8)
    merger.merge(list(case.inputs), case.base, out, 0, counters)
    assert np.array_equal(counters, np.arange(8) + 2 * once)


def test_name_seed_and_order_decide() -> None:
    case = make_case(np.random.default_rng(2), dtypes=("F32",) * 3, base_dtype="F32", count=1000, edges=0.0)
    whole, _ = run(case)
    assert run(case)[0] == whole
    assert run(case, name="layers.1.weight")[0] != whole
    assert run(case, seed=2)[0] != whole
    turned = replace(case, inputs=case.inputs[::-1])
    assert run(turned)[0] != whole
    assert run(replace(case, first=1))[0] != whole
