"""The same bytes however the work is cut, and the bytes that the definition of the methods gives."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import reference
from tests.support.checkpoints import FLOATS, Family, Shapes, Tensor, make_family, read_model, write_model
from tests.support.merging import digests, merge, prepared_of

# Odd numbers of bytes before wide elements: data are unaligned, and parts cut elements.
ODD: Shapes = {
    "first": ("U8", (33,)),
    "wide": ("BF16", (211, 307)),
    "again": ("U8", (7,)),
    "exact": ("F32", (20_011,)),
    "third": ("U8", (3, 5)),
    "double": ("F64", (4_999,)),
    "half": ("F16", (12_345,)),
    "small": ("F8_E4M3", (1_001,)),
    "whole": ("I64", (77,)),
    "flags": ("BOOL", (9,)),
    "none": ("BF16", (0, 3)),
    "one": ("BF16", ()),
}
RESAMPLE: list[Any] = [0, 1, 4, "unlimited"]
GOLDEN = {
    "select": "888022f37a1cfa022df53c231c627722c1448955668dc8deffc3e9d274726ee7",
    "weighted": "a6f97692b84a98d9ef698292dd7bc3adbd265e6508b98f07fcfe4f18dedad7f6",
    "average": "57556422015599d68b3ab53dc131aab65471205ae1d5ee61e3f8433306cd8fe1",
}


@contextmanager
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


dtypes = st.sampled_from(["U8", "BF16", "F32", "F16", "F64", "I32"])
shapes = st.lists(
    st.tuples(dtypes, st.lists(st.integers(1, 211), min_size=0, max_size=2).map(tuple)),
    min_size=1,
    max_size=5,
).map(lambda found: {"odd": ("U8", (13,))} | {f"layer.{n}": what for n, what in enumerate(found)})
cuts = st.fixed_dictionaries(
    {
        "part_size": st.integers(64 << 10, 70_001) | st.just(1 << 20),
        "shard_size": st.sampled_from([1000, 50_000, 10**9]),
        "step": st.integers(301, 40_000),
        "threads": st.integers(1, 3),
    }
)


def run(family: Family, output: str, *, step: int, threads: int, **spec: Any) -> Path:
    out = family.root / output
    merge(family.spec(output=str(out), **spec), step=step, threads=threads)
    return out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shapes=shapes,
    models=st.integers(1, 5),
    kept=st.sampled_from([0.0, 0.5, 1.0]),
    weights=st.none() | st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=5, max_size=5),
    resample=st.sampled_from(RESAMPLE),
    seed=st.integers(0, 2**64 - 1),
    one=cuts,
    other=cuts,
)
def test_select_gives_the_same_bytes_however_it_is_cut(
    shapes: Shapes,
    models: int,
    kept: float,
    weights: list[float] | None,
    resample: Any,
    seed: int,
    one: dict[str, Any],
    other: dict[str, Any],
) -> None:
    with temporary() as root:
        family = make_family(root, shapes, models=models, kept=kept)
        shares = weights[:models] if weights else [1.0] * models
        names = [str(root / f"m{index}") for index in range(models)]
        spec = {
            "models": [{"uri": uri, "weight": weight} for uri, weight in zip(names, shares, strict=True)],
            "method": {"name": "select", "resample": resample},
            "seed": seed,
        }
        expected, counts = reference.expected(
            family.models, family.base, weights=shares, resample=resample, seed=seed
        )
        for name, cut in (("one", one), ("other", other)):
            out = run(family, name, **cut, **spec)
            assert read_model(out) == expected
            assert_statistics(out, expected, counts)


def assert_statistics(out: Path, tensors: dict[str, Tensor], counts: dict[str, list[int]]) -> None:
    """What plait.json says of each tensor is what was counted independently."""
    described = json.loads((out / "plait.json").read_text())["tensors"]
    assert list(described) == list(tensors)
    for name, count in counts.items():
        elements = prod(tensors[name].shape)
        if elements == 0:
            assert described[name] == {"elements": 0}
            continue
        shares = [round(each / elements, 6) for each in count]
        assert described[name] == {"elements": elements, "taken": shares[:-1], "kept_base": shares[-1]}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 30_011), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(["BF16", "F16", "F32", "F64"]), min_size=1, max_size=3),
    weights=st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=3, max_size=3).filter(any),
    normalize=st.booleans(),
    one=cuts,
    other=cuts,
)
def test_average_gives_the_same_bytes_however_it_is_cut(
    sizes: list[int],
    kinds: list[str],
    weights: list[float],
    normalize: bool,
    one: dict[str, Any],
    other: dict[str, Any],
) -> None:
    with temporary() as root:
        models: list[dict[str, Tensor]] = []
        for index in range(len(kinds)):  # each model in a dtype of its own
            shapes = {f"t{n}": (kinds[index], (size,)) for n, size in enumerate(sizes)}
            models.append(dict(make_family(root / "tmp", shapes, models=0, seed=str(index)).base))
            write_model(root / f"m{index}", models[index])
        family = Family(root, {}, models)
        shares = weights[: len(kinds)] if any(weights[: len(kinds)]) else [1.0] * len(kinds)
        entries = [{"uri": str(root / f"m{n}"), "weight": weight} for n, weight in enumerate(shares)]
        method = {"name": "average", "normalize": normalize}
        expected = {
            name: reference.average([each[name] for each in models], weights=shares, normalize=normalize)
            for name in models[0]
        }
        for name, cut in (("one", one), ("other", other)):
            out = run(family, name, **cut, models=entries, method=method, base=None)
            assert read_model(out) == expected


@pytest.mark.parametrize("dtype", ["auto", "f32", "bf16"])
def test_parts_that_cut_elements_and_steps_of_every_size(tmp_path: Path, dtype: str) -> None:
    family = make_family(tmp_path, ODD)
    # 64-bit elements narrowed to 16 bits round twice in the reference; they are left out.
    shapes = {name: what for name, what in ODD.items() if dtype == "auto" or what[0] != "F64"}
    for name, tensors in (("base", family.base), *((f"m{n}", each) for n, each in enumerate(family.models))):
        write_model(tmp_path / name, {each: tensors[each] for each in shapes})
    models = [{name: model[name] for name in shapes} for model in family.models]
    expected, counts = reference.expected(models, family.base, seed=3, dtype=dtype)
    for number, (part, step, threads) in enumerate(
        [(65_536, 331, 2), (65_537, 4096, 1), (65_539, 4099, 3), (99_999, 64 << 10, 2), (1 << 24, 1 << 20, 1)]
    ):
        out = run(family, f"out{number}", step=step, threads=threads, part_size=part, seed=3, dtype=dtype)
        assert read_model(out) == expected
        assert_statistics(out, expected, counts)


def test_memory_and_threads_leave_every_file_as_it_is(tmp_path: Path) -> None:
    family = make_family(tmp_path, ODD)
    spec = family.spec(part_size="64KiB", shard_size=90_000)
    found = []
    for memory, threads in ((1 << 20, 1), (8 << 20, 4), (1 << 30, 2)):
        merge(spec, memory=memory, threads=threads, overwrite=True)
        found.append(digests(family.out))
    assert found[0] == found[1] == found[2]
    assert "plait.json" in found[0]
    assert sum(name.endswith(".safetensors") for name in found[0]) > 2


def test_the_order_of_parts_does_not_matter(tmp_path: Path) -> None:
    family = make_family(tmp_path, ODD)
    spec = family.spec(part_size="64KiB")
    merge(spec, threads=1)
    before = digests(family.out)
    prepared = prepared_of(spec)
    units = type(prepared.plan.job).units
    backwards = list(reversed(prepared.plan.job.units()))
    object.__setattr__(prepared.plan.job, "units", lambda: backwards)
    merge(prepared, threads=1, overwrite=True)
    assert prepared.plan.job.units() != units(prepared.plan.job)
    assert digests(family.out) == before


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_digest(tmp_path: Path, name: str) -> None:
    """Sources and results are the same bytes on every machine and with every version of NumPy."""
    family = make_family(tmp_path, ODD, seed="golden")
    methods: dict[str, Any] = {
        "select": {"method": {"name": "select", "resample": 4}, "seed": 2**64 - 1},
        "weighted": {"method": {"name": "select", "resample": "unlimited"}, "seed": 42},
        "average": {"method": {"name": "average"}, "base": None},
    }
    weights = [0.5, 2.0, 1.25] if name == "weighted" else [1.0, 1.0, 1.0]
    uris = [str(tmp_path / f"m{index}") for index in range(3)]
    entries = [{"uri": uri, "weight": weight} for uri, weight in zip(uris, weights, strict=True)]
    if name == "average":
        floats = [each for each, what in ODD.items() if what[0] in FLOATS]
        for index, model in enumerate(family.models):
            write_model(tmp_path / f"m{index}", {each: model[each] for each in floats})
    merge(family.spec(models=entries, part_size="64KiB", **methods[name]))
    shard = (family.out / "model.safetensors").read_bytes()
    assert hashlib.sha256(shard).hexdigest() == GOLDEN[name]
