"""Every level that this processor runs gives the bits of every other, however arrays lie in memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from plait.errors import InternalError
from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.kernels import native
from plait_workers.kernels.forms import form_of
from plait_workers.kernels.native import levels
from plait_workers.kernels.philox import draw
from plait_workers.kernels.select import count_changed
from plait_workers.methods import METHODS
from plait_workers.methods.base import TensorContext

Bits = npt.NDArray[np.unsignedinteger]
DTYPE_NAMES = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2FNUZ", "U8", "I16", "I32", "I64")
SELECTIONS = (0, 1, 4, "unlimited")
CPU_INFO = Path("/proc/cpuinfo")
SIZES = (1, 63, 65, 1024, 5003)


def family(dtype: str, models: int, n: int, seed: int) -> tuple[list[Bits], Bits]:
    """Any bits at all: a third of each sub-model is the base's, some of it zeros of both signs and NaN."""
    storage = DTYPES[dtype].storage
    assert storage is not None
    rng = np.random.default_rng(seed)
    most = int(np.iinfo(storage).max)
    base = rng.integers(0, most, n, storage, endpoint=True)
    inputs = []
    for _ in range(models):
        x = rng.integers(0, most, n, storage, endpoint=True)
        keep = rng.random(n) < 0.3
        x[keep] = base[keep]
        x[rng.random(n) < 0.1] = 0
        x[rng.random(n) < 0.1] = most ^ (most >> 1)
        inputs.append(x)
    base[rng.random(n) < 0.1] = 0
    frozen = slice(n // 3, 2 * n // 3)
    for x in inputs:
        x[frozen] = base[frozen]
    return inputs, base


def calm(bits: Bits, dtype: str) -> Bits:
    """The same without large exponents, so that whole blocks are finite."""
    width = 8 * bits.itemsize
    return bits & bits.dtype.type((1 << (width - 1)) | ((1 << (width - 2)) - 1)) if dtype[0] == "F" else bits


def merged(
    method: dict[str, object], dtype: str, inputs: list[Bits], base: Bits, first: int, weights: list[float]
) -> tuple[bytes, list[int]]:
    kind = DTYPES[dtype]
    context = TensorContext(
        name="t",
        inputs=(kind,) * len(inputs),
        base=kind,
        working=kind,
        output=kind,
        weights=tuple(weights),
        seed=5,
    )
    out = np.zeros_like(base)
    counters = np.zeros(2 * len(inputs) + 2, np.int64)
    merger = METHODS[str(method["name"])].model_validate(method).merger(context)
    merger.merge(inputs, base, out, first, counters)
    return out.tobytes(), counters.tolist()


def on_every_level(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> list[tuple[bytes, list[int]]]:
    results = []
    for level in levels():
        with monkeypatch.context() as patch:
            patch.setattr(native, "levels", lambda level=level: (level,))
            results.append(merged(*arguments))  # type: ignore[arg-type]
    return results


def test_this_processor_has_levels_to_compare() -> None:
    assert len(levels()) == len(set(levels())) > (1 if "v3" in levels() else 0)


@pytest.mark.skipif(
    not CPU_INFO.exists() or "avx2" not in CPU_INFO.read_text(), reason="another kind of processor"
)
def test_the_best_level_is_what_the_system_says_of_its_processor() -> None:
    flags = set(CPU_INFO.read_text().partition("flags")[2].partition("\n")[0].split())
    wide = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= flags
    assert levels()[0] == ("v4" if wide else "v3")


@pytest.mark.parametrize("dtype", DTYPE_NAMES)
@pytest.mark.parametrize("quiet", [True, False], ids=["finite", "any bits"])
def test_selection(dtype: str, quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = itertools.product((1, 2, 5, 9, 20, 33), SELECTIONS, (True, False))
    for number, (models, resample, equal) in enumerate(cases):
        n, first = SIZES[number % len(SIZES)], (0, 7, 2**33 - 600)[number % 3]
        inputs, base = family(dtype, models, n, number)
        if quiet:
            inputs, base = [calm(x, dtype) for x in inputs], calm(base, dtype)
        weights = [1.0] * models if equal else [float(i % 5) for i in range(1, models + 1)]
        method: dict[str, object] = {"name": "select", "resample": resample}
        results = on_every_level(monkeypatch, method, dtype, inputs, base, first, weights)
        assert all(result == results[0] for result in results), (models, resample, equal, n)


@pytest.mark.parametrize("dtype", [name for name in DTYPE_NAMES if name.startswith("F")])
def test_average(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, models in enumerate((1, 2, 5, 20)):
        inputs, base = family(dtype, models, SIZES[number], number)
        weights = [0.1 * (i + 1) for i in range(models)]
        results = on_every_level(monkeypatch, {"name": "average"}, dtype, inputs, base, 0, weights)
        assert all(result == results[0] for result in results), models


@pytest.mark.parametrize("level", levels())
def test_draws(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    best = draw((8, 9), 2**33 - 3001, 7000)
    monkeypatch.setattr(native, "levels", lambda: (level,))
    assert np.array_equal(draw((8, 9), 2**33 - 3001, 7000), best)


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64", "I64"])
@pytest.mark.parametrize("name", ["select", "average"])
def test_arrays_lie_anywhere(dtype: str, name: str) -> None:
    if name == "average" and dtype == "I64":
        dtype = "F16"
    inputs, base = family(dtype, 3, 2500, 1)

    def moved(bits: Bits, by: int) -> Bits:
        place = np.zeros(bits.nbytes + by, np.uint8)[by:]
        place[:] = bits.view(np.uint8)
        return np.frombuffer(place, bits.dtype)

    weights = [1.0] * 3
    apart = [moved(x, 1 + 2 * index) for index, x in enumerate(inputs)]
    found = merged({"name": name}, dtype, apart, moved(base, 5), 3, weights)
    assert found == merged({"name": name}, dtype, inputs, base, 3, weights)


def test_arrays_of_other_lengths_are_refused() -> None:
    inputs, base = family("BF16", 3, 100, 1)
    with pytest.raises(InternalError, match="a kernel's arrays differ"):
        merged({"name": "select"}, "BF16", [*inputs[:2], inputs[2][:99]], base, 0, [1.0] * 3)
    with pytest.raises(InternalError, match="a kernel's arrays differ"):
        merged({"name": "average"}, "BF16", [*inputs[:2], inputs[2][:99]], base, 0, [1.0] * 3)
    with pytest.raises(InternalError, match="a kernel's arrays differ"):
        count_changed(base[::2], base[:50], form_of(DTYPES["BF16"]))


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(native, "_LIBRARY", f"{tmp_path}/nothing.so")
    with pytest.raises(InternalError, match="the compiled kernels cannot be loaded") as caught:
        native.library.__wrapped__()
    assert "make install" in str(caught.value)
