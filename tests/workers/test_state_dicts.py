from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from plait.errors import PlanRejected
from plait_workers import state_dicts
from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.methods import METHODS
from plait_workers.methods.base import Merger, TensorContext
from plait_workers.methods.selection import Select
from plait_workers.state_dicts import merge_state_dicts
from plait_workers.working import working_dtype
from tests.support.checkpoints import make_family
from tests.support.merging import merge
from tests.support.state_dicts import ARITHMETIC, NAMES, State, raw, state


def directly(
    name: str,
    models: list[State],
    base: State | None,
    method: dict[str, Any],
    seed: int,
    weights: list[float],
) -> bytes:
    """The method itself, on the bytes of the tensors."""
    kinds = [DTYPES[NAMES[model[name].dtype]] for model in models]
    working = working_dtype(kinds)
    assert working is not None
    chosen = METHODS[method["name"]].model_validate(method)
    used = base is not None and chosen.needs_base and name in base
    kind = DTYPES[NAMES[base[name].dtype]] if used and base is not None else None
    context = TensorContext(
        name=name,
        inputs=tuple(kinds),
        base=kind,
        working=working,
        output=working,
        weights=tuple(weights),
        seed=seed,
    )
    sources = [np.frombuffer(raw(model[name]), k.storage) for model, k in zip(models, kinds, strict=True)]
    origin = np.frombuffer(raw(base[name]), kind.storage) if kind is not None and base is not None else None
    out = np.empty(len(sources[0]), working.storage)
    chosen.merger(context).merge(sources, origin, out, 0, np.zeros(2 * len(models) + 2, np.int64))
    return out.tobytes()


def same(
    found: State, models: list[State], base: State | None, method: dict[str, Any], **options: Any
) -> None:
    seed, weights = options.get("seed", 0), options.get("weights") or [1.0] * len(models)
    assert list(found) == list(models[0])
    for name, tensor in found.items():
        assert raw(tensor) == directly(name, models, base, method, seed, weights), name
        assert tensor.shape == models[0][name].shape


@pytest.mark.parametrize("resample", [0, 1, "unlimited"])
def test_every_dtype(resample: int | str) -> None:
    dtypes = {name: dtype for dtype, name in NAMES.items()}
    models, base = [state(i, dtypes) for i in range(3)], state(9, dtypes)
    method = {"name": "select", "resample": resample}
    found = merge_state_dicts(models, base, method, seed=2**64 - 1)
    same(found, models, base, method, seed=2**64 - 1)
    assert {name: tensor.dtype for name, tensor in found.items()} == dtypes


@pytest.mark.parametrize("weights", [None, [1, 0.5, 0]])
def test_mixed_dtypes(weights: list[float] | None) -> None:
    """The result has the dtype that holds all of them; a base of another one is converted to it."""
    models = [state(i, {"a": dtype, "b": torch.bfloat16}) for i, dtype in enumerate(ARITHMETIC[1:])]
    for base_dtype in ARITHMETIC:
        base = state(9, {"a": base_dtype, "b": base_dtype})
        for method in ({"name": "select"}, {"name": "average"}):
            found = merge_state_dicts(models, base, method, seed=5, weights=weights)
            same(found, models, base, method, seed=5, weights=weights)
            assert (found["a"].dtype, found["b"].dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("method", [{"name": "average"}, {"name": "average", "normalize": False}])
def test_average(method: dict[str, Any]) -> None:
    dtypes = {str(dtype): dtype for dtype in (*ARITHMETIC, torch.float8_e4m3fn, torch.float8_e5m2)}
    models = [state(i, dtypes) for i in range(3)]
    same(merge_state_dicts(models, method=method), models, None, method)
    weights = [0.3, -1.0, 2.0]
    same(merge_state_dicts(models, None, method, weights=weights), models, None, method, weights=weights)


def test_shapes_strides_and_shared_memory() -> None:
    def model(seed: int) -> State:
        big = state(seed, {"x": torch.float32}, (12, 10))["x"]
        return {
            "transposed": big.t(),
            "strided": big[::3, 1::2],
            "scalar": big[0, 0],
            "empty": big[:0],
            "expanded": big[:1].expand(4, 10),
            "tied": big,
            "tied too": big,
            "negative": torch._neg_view(big),
            "parameter": torch.nn.Parameter(big.clone()),
        }

    models, base = [model(i) for i in range(3)], model(9)
    before = [{name: raw(tensor) for name, tensor in each.items()} for each in (*models, base)]
    found = merge_state_dicts(models, base, seed=3)
    plain = [
        {name: t.detach().resolve_neg().contiguous() for name, t in each.items()} for each in (*models, base)
    ]
    same(found, plain[:3], plain[3], {"name": "select"}, seed=3)
    assert before == [{name: raw(tensor) for name, tensor in each.items()} for each in (*models, base)]
    assert raw(found["tied"]) != raw(found["tied too"])  # the name decides, not the memory
    own = {tensor.data_ptr() for each in (*models, base) for tensor in each.values() if tensor.numel()}
    assert not own & {tensor.data_ptr() for tensor in found.values() if tensor.numel()}
    assert not any(tensor.requires_grad for tensor in found.values())


def test_what_has_no_mean_must_agree() -> None:
    dtypes = {"i": torch.int32, "b": torch.bool, "u": torch.uint16, "e": torch.float8_e8m0fnu}
    one = state(1, dtypes)
    one["e"] = torch.arange(256, dtype=torch.uint8).view(torch.float8_e8m0fnu)  # a NaN among them
    same_again = {name: tensor.clone() for name, tensor in one.items()}
    found = merge_state_dicts([one, same_again], method={"name": "average"})
    assert {name: raw(tensor) for name, tensor in found.items()} == {name: raw(t) for name, t in one.items()}
    found["i"][0] += 1
    assert raw(one["i"]) == raw(same_again["i"])  # a copy, not the input itself
    for name, tensor in one.items():
        turned = tensor.reshape(-1).view(torch.uint8).flip(0).view(tensor.dtype).reshape(tensor.shape)
        with pytest.raises(PlanRejected, match=name):
            merge_state_dicts([one, {**one, name: turned}], method={"name": "average"})


def test_other_tensors_of_the_model_change_nothing() -> None:
    dtypes = {"a": torch.float32, "b": torch.float32}
    models, base = [state(i, dtypes) for i in range(2)], state(9, dtypes)
    both = merge_state_dicts(models, base)
    alone = merge_state_dicts([{"a": model["a"]} for model in models], {"a": base["a"]})
    assert torch.equal(both["a"], alone["a"])
    turned = merge_state_dicts([dict(reversed(model.items())) for model in models], base)
    assert all(torch.equal(both[name], turned[name]) for name in both)
    assert list(turned) == ["b", "a"]
    renamed = merge_state_dicts([{"c": model["a"]} for model in models], {"c": base["a"]})
    assert not torch.equal(renamed["c"], both["a"])


def test_a_tensor_that_the_base_lacks_is_drawn_without_it() -> None:
    models = [state(i, {"a": torch.float32}) for i in range(2)]
    found = merge_state_dicts(models, {}, {"name": "select", "resample": 4})
    blind = merge_state_dicts(models, None, {"name": "select", "resample": 0})
    assert torch.equal(found["a"], blind["a"])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_large_tensor_is_merged_by_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as torch has, all at once, and it does not show."""
    models = [state(i, {"a": torch.bfloat16}, (40, 30)) for i in range(3)]
    base = {"a": models[0]["a"].clone()}
    expected = directly("a", models, base, {"name": "select", "resample": 4}, 5, [1.0] * 3)
    together = threading.Barrier(threads, timeout=30)
    bind = Select.merger

    def bind_together(self: Select, context: TensorContext) -> Merger:
        together.wait()
        return bind(self, context)

    monkeypatch.setattr(Select, "merger", bind_together)
    monkeypatch.setattr(state_dicts, "_STRETCH", 203)  # six stretches
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = merge_state_dicts(models, base, {"name": "select", "resample": 4}, seed=5)
    finally:
        torch.set_num_threads(before)
    assert raw(found["a"]) == expected


def test_same_bits_as_a_merge_of_checkpoints(tmp_path: Path) -> None:
    shapes = {"a": ("BF16", (300, 7)), "b": ("F32", (50,)), "c": ("I64", (9,)), "d": ("F8_E4M3", (64,))}
    for method in ({"name": "select", "resample": 2}, {"name": "select", "resample": 0}):
        family = make_family(tmp_path / str(method["resample"]), shapes)
        merge(family.spec(method, seed=77))
        paths = [family.root / name / "model.safetensors" for name in ("m0", "m1", "m2", "base")]
        *models, base = (load_file(path) for path in paths)
        found = merge_state_dicts(models, base, method, seed=77)
        written = load_file(family.out / "model.safetensors")
        assert {name: raw(t) for name, t in found.items()} == {name: raw(t) for name, t in written.items()}
