"""The spec's ``resources``: what is wrong with it has its line, and it is no part of a result."""

from __future__ import annotations

import pytest

from plait.errors import PlaitError, PlanRejected
from plait.spec import MergeSpec, load_spec
from plait.spec_resources import ResourcesSpec, is_label
from plait_workers.methods import METHODS

PLAIN = "models: [a, b]\nbase: c\nmethod: {name: select}\noutput: d\n"


def problems(resources: str) -> list[str]:
    with pytest.raises(PlanRejected) as refused:
        load_spec(PLAIN + f"resources:\n  {resources}\n", methods=METHODS)
    assert all(isinstance(problem, PlaitError) for problem in refused.value.problems)
    return [str(problem) for problem in refused.value.problems]


def test_it_is_read_and_written() -> None:
    text = PLAIN + "resources: {workers: 4, cpus: 8, memory: 4GB, labels: {ray.io/market-type: spot}}\n"
    spec = load_spec(text, methods=METHODS)
    assert spec.resources == ResourcesSpec(
        workers=4, cpus=8, memory=4 * 10**9, labels={"ray.io/market-type": "spot"}
    )
    assert "memory: 4 GB" in spec.to_yaml()
    assert load_spec(spec.to_yaml(), methods=METHODS) == spec
    assert "resources" not in spec.to_yaml(places=False)
    assert hash(spec.resources) == hash(load_spec(spec.to_yaml(), methods=METHODS).resources)
    assert "resources" not in load_spec(PLAIN, methods=METHODS).to_yaml()
    assert MergeSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ("worker: 4", "Did you mean 'workers'?"),
        ("workers: 0", "at least 1"),
        ("workers: 2.5", "a whole number"),
        ("cpus: many", "a whole number"),
        ("memory: lots", "a size such as 5GB"),
        ("labels: {a: 1}", "labels of nodes"),
        ("labels: {'a b': c}", "labels of nodes"),
        ("labels: {a: 'in(b,c)'}", "labels of nodes"),
        ("labels: [a]", "a mapping"),
    ],
)
def test_what_is_wrong(resources: str, said: str) -> None:
    (problem,) = problems(resources)
    assert problem.startswith("merge.yaml:6: reading resources.")
    assert said in problem


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("a", "b", True),
        ("ray.io/market-type", "spot", True),
        ("a", "", True),
        ("", "b", False),
        ("/a", "b", False),
        ("a/b/c", "d", False),
        ("a", "!b", False),
        ("a" * 64, "b", False),
    ],
)
def test_labels(key: str, value: str, good: bool) -> None:
    assert is_label(key, value) == good
