"""On a GPU the same bits as on the CPU. Skipped where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plait.errors import PlanRejected
from plait_workers.state_dicts import merge_state_dicts
from tests.support.state_dicts import ARITHMETIC, NAMES, State, raw, state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DTYPES = {name: dtype for dtype, name in NAMES.items()}
FLOATS = {str(dtype): dtype for dtype in ARITHMETIC}


def moved(model: State, device: str) -> State:
    return {name: tensor.to(device) for name, tensor in model.items()}


def same(found: State, expected: State, device: str = "cuda") -> None:
    assert {tensor.device.type for tensor in found.values()} == {device}
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert {name: raw(tensor.cpu()) for name, tensor in found.items()} == {
        name: raw(tensor) for name, tensor in expected.items()
    }


@pytest.mark.parametrize(
    ("dtypes", "method"),
    [
        (DTYPES, {"name": "select", "resample": 0}),
        (DTYPES, {"name": "select", "resample": 4}),
        (FLOATS, {"name": "average"}),
    ],
)
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 3.0]])
def test_the_same_bits(
    dtypes: dict[str, torch.dtype], method: dict[str, Any], weights: list[float] | None
) -> None:
    models, base = [state(i, dtypes, (257, 33)) for i in range(3)], state(9, dtypes, (257, 33))
    expected = merge_state_dicts(models, base, method, seed=11, weights=weights)
    there = [moved(model, "cuda") for model in models]
    same(merge_state_dicts(there, moved(base, "cuda"), method, seed=11, weights=weights), expected)
    # A base that was left on the CPU is as good.
    same(merge_state_dicts(there, base, method, seed=11, weights=weights), expected)


def test_the_result_is_where_the_first_model_is() -> None:
    models, base = [state(i, FLOATS) for i in range(3)], state(9, FLOATS)
    expected = merge_state_dicts(models, base, seed=2)
    first, *others = models
    same(merge_state_dicts([moved(first, "cuda"), *others], base, seed=2), expected)
    same(merge_state_dicts([first, *(moved(m, "cuda") for m in others)], base, seed=2), expected, "cpu")


def test_strides_and_inputs_left_alone() -> None:
    def model(seed: int) -> State:
        big = state(seed, {"x": torch.bfloat16}, (12, 10))["x"].cuda()
        return {
            "transposed": big.t(),
            "strided": big[::3, 1::2],
            "negative": torch._neg_view(big),
            "empty": big[:0],
        }

    models, base = [model(i) for i in range(3)], model(9)
    before = [{name: raw(tensor) for name, tensor in each.items()} for each in (*models, base)]
    plain = [
        {name: t.resolve_neg().contiguous().cpu() for name, t in each.items()} for each in (*models, base)
    ]
    same(merge_state_dicts(models, base, seed=3), merge_state_dicts(plain[:3], plain[3], seed=3))
    assert before == [{name: raw(tensor) for name, tensor in each.items()} for each in (*models, base)]


def test_what_must_agree_and_does_not() -> None:
    one = moved(state(1, {"i": torch.int32}), "cuda")
    with pytest.raises(PlanRejected, match="i: not merged"):
        merge_state_dicts([one, {"i": one["i"] + 1}], method={"name": "average"})
