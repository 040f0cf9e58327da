"""The error tree: drawn in its module's docstring, with kinds that never change."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator

import pytest

from plait import errors
from plait.errors import PlaitError, PlanRejected, SourceChanged, SpecInvalid

KINDS = {
    "access-denied": 1,
    "auth-expired": 1,
    "budget-too-small": 2,
    "cancelled": 130,
    "checkpoint-malformed": 2,
    "checkpoint-unsupported": 2,
    "cluster-unavailable": 1,
    "cluster-unsuitable": 1,
    "commit-unknown": 3,
    "driver-lost": 1,
    "forbidden": 1,
    "idempotency-conflict": 1,
    "internal": 1,
    "no-space": 1,
    "not-found": 1,
    "output-claimed": 1,
    "output-corrupt": 1,
    "output-exists": 2,
    "quantized-source": 2,
    "service-unavailable": 1,
    "source-changed": 1,
    "source-corrupt": 1,
    "source-missing": 2,
    "spec-invalid": 2,
    "store-refused": 1,
    "store-unavailable": 1,
    "store-unsuitable": 1,
    "tensor-mismatch": 2,
    "too-large": 1,
    "too-many-requests": 1,
    "unauthenticated": 1,
    "upload-gone": 1,
    "worker-lost": 1,
    "wrong-state": 1,
}
"""Every kind and its exit status. Kinds are only ever added."""


def _classes(root: type[PlaitError] = PlaitError) -> Iterator[type[PlaitError]]:
    yield root
    for child in root.__subclasses__():  # stores tell apart more than has a kind, among themselves
        if child.__module__ == errors.__name__:
            yield from _classes(child)


LEAVES = [
    each for each in _classes() if each is not PlaitError and isinstance(each.__dict__.get("kind"), str)
]


def test_kinds_and_exit_statuses_are_locked() -> None:
    assert {each.kind: each.exit_status for each in LEAVES} == KINDS
    assert len(LEAVES) == len(KINDS)


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"─ (\w+) +([a-z]+(?:-[a-z]+)*)", errors.__doc__))
    for each in LEAVES:
        assert drawn.get(each.__name__) == each.kind, each
    for each in _classes():
        assert re.search(rf"\b{each.__name__}\b", errors.__doc__), each


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.kind)
def test_errors_cross_processes_whole(cls: type[PlaitError]) -> None:
    error = cls("doing it", where="here", expected="this", found="that", hint="Do so")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error) == "here: doing it; expected this, found that. Do so"
    assert again.to_json() == error.to_json()


def test_a_rejected_plan_carries_all_its_problems() -> None:
    rejected = PlanRejected([SpecInvalid("one", where="a"), SourceChanged("two", where="b")])
    assert (rejected.kind, rejected.exit_status) == ("spec-invalid", 2)
    assert str(rejected) == "spec-invalid: a: one\nsource-changed: b: two"
    again = pickle.loads(pickle.dumps(rejected))
    assert [type(problem) for problem in again.problems] == [SpecInvalid, SourceChanged]
    assert [problem["kind"] for problem in again.to_json()["problems"]] == ["spec-invalid", "source-changed"]


def test_a_rejected_plan_has_a_problem() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PlanRejected([])
