from __future__ import annotations

from typing import Any

import pytest
import torch

from plait.errors import PlaitError, PlanRejected, SpecInvalid, TensorMismatch
from plait_workers.methods.selection import Select
from plait_workers.state_dicts import merge_state_dicts

A = torch.zeros(6)
GOOD: dict[str, Any] = {"models": [{"a": A}, {"a": A}], "base": {"a": A}}
BAD: list[tuple[str, dict[str, Any], type[PlaitError]]] = [
    ("no models", {"models": []}, SpecInvalid),
    ("too many models", {"models": [{"a": A}] * 4097}, SpecInvalid),
    ("weights", {"weights": [1.0]}, SpecInvalid),
    ("negative weight", {"weights": [1.0, -1.0]}, SpecInvalid),
    ("nan", {"weights": [1.0, float("nan")]}, SpecInvalid),
    ("seed -1", {"seed": -1}, SpecInvalid),
    ("seed 2**64", {"seed": 2**64}, SpecInvalid),
    ("seed 1.5", {"seed": 1.5}, SpecInvalid),
    ("seed True", {"seed": True}, SpecInvalid),
    ("method text", {"method": "select"}, SpecInvalid),
    ("method name", {"method": {"name": "slerp"}}, SpecInvalid),
    ("method nameless", {"method": {"resample": 1}}, SpecInvalid),
    ("method option", {"method": {"name": "select", "resample": 65}}, SpecInvalid),
    ("no base", {"base": None}, SpecInvalid),
    ("names", {"models": [{"a": A}, {"b": A}]}, TensorMismatch),
    ("one more", {"models": [{"a": A}, {"a": A, "b": A}]}, TensorMismatch),
    ("shapes", {"models": [{"a": A}, {"a": A[:5]}]}, TensorMismatch),
    ("shape of the base", {"base": {"a": A.reshape(2, 3)}}, TensorMismatch),
    ("dtypes", {"models": [{"a": A}, {"a": A.int()}]}, TensorMismatch),
    ("integer base", {"base": {"a": A.long()}}, TensorMismatch),
    ("8-bit base", {"base": {"a": A.to(torch.float8_e4m3fn)}}, TensorMismatch),
    ("float base of integers", {"models": [{"a": A.int()}] * 2}, TensorMismatch),
    ("complex", {"models": [{"a": A}, {"a": A.to(torch.complex64)}]}, TensorMismatch),
    ("complex base", {"base": {"a": A.to(torch.complex64)}}, TensorMismatch),
    ("no tensor", {"models": [{"a": A}, {"a": 1}]}, TensorMismatch),
    ("sparse", {"models": [{"a": A.to_sparse()}] * 2}, TensorMismatch),
    ("meta", {"models": [{"a": A.to("meta")}] * 2}, TensorMismatch),
]


@pytest.mark.parametrize(("changes", "kind"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_refused(changes: dict[str, Any], kind: type[PlaitError]) -> None:
    assert list(merge_state_dicts(**GOOD)) == ["a"]
    with pytest.raises(PlanRejected) as refused:
        merge_state_dicts(**{**GOOD, **changes})
    assert {type(problem) for problem in refused.value.problems} == {kind}


def test_all_problems_are_told_together() -> None:
    one = {"a": A, "b": A, "c": A}
    other = {"a": A[:3], "b": A.to(torch.complex64), "d": A}
    with pytest.raises(PlanRejected) as refused:
        merge_state_dicts([one, other], None, Select(), seed=-1, weights=[0, 0])
    assert len(refused.value.problems) == 6
    for word in ("seed", "base", "weight", "other tensors", "shapes", "complex64"):
        assert word in str(refused.value)
