"""Every manifest is what Kubernetes and KubeRay accept, to the letter; what they refuse is noticed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.deploy.manifests import (
    KUBERAY,
    KUSTOMIZATIONS,
    WRITTEN,
    Manifest,
    load_all,
    of_kind,
    rendered,
    walk,
)
from tests.deploy.schemas import is_valid, problems

each = pytest.mark.parametrize("manifest", WRITTEN, ids=str)


@each
def test_it_is_valid(manifest: Manifest) -> None:
    assert problems(manifest.data) == []


def test_what_kustomize_makes_of_them_is_valid() -> None:
    made = rendered()
    kinds = {manifest.kind for manifest in made}
    assert {"Namespace", "RayCluster", "RayJob", "CronJob", "ConfigMap", "NetworkPolicy"} <= kinds
    assert [text for manifest in made for text in problems(manifest.data)] == []


def test_kustomize_is_told_of_every_file() -> None:
    named = set()
    for folder in (*KUSTOMIZATIONS, KUBERAY / "nightly"):
        [kustomization] = load_all((folder / "kustomization.yaml").read_text())
        named |= {folder / name for name in kustomization["resources"]}
        named |= {
            folder / name for one in kustomization.get("configMapGenerator", []) for name in one["files"]
        }
    there = {path for path in KUBERAY.rglob("*") if path.is_file() and path.name != "kustomization.yaml"}
    assert {path for path in named if path.is_file()} == {
        path for path in there if "__pycache__" not in str(path)
    }


def changed(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of an object with another value at one place."""
    copy = deepcopy(data)
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@each
def test_an_unknown_field_is_caught_wherever_it_stands(manifest: Manifest) -> None:
    # Where any name may stand, as among labels, no object may be its value.
    for path, node in walk(manifest.data):
        if isinstance(node, dict) and path:
            assert not is_valid(changed(manifest.data, (*path, "unknown"), {"field": True})), path
    assert not is_valid(manifest.data | {"unknown": True})


@each
def test_a_wrong_type_is_caught_wherever_it_stands(manifest: Manifest) -> None:
    for path, node in walk(manifest.data):
        if path:
            wrong = "a word" if isinstance(node, dict | list) else {"an": "object"}
            assert not is_valid(changed(manifest.data, path, wrong)), path


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("RayCluster", ("metadata",)),
        ("RayCluster", ("spec", "headGroupSpec")),
        ("RayCluster", ("spec", "headGroupSpec", "template")),
        ("RayCluster", ("spec", "headGroupSpec", "template", "spec", "containers")),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "groupName")),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "name")),
        ("RayJob", ("spec",)),
        ("RayJob", ("spec", "rayClusterSpec", "headGroupSpec")),
        ("RayJob", ("spec", "deletionStrategy", "deletionRules", 0, "policy")),
        ("RayJob", ("spec", "deletionStrategy", "deletionRules", 0, "condition")),
        ("CronJob", ("spec", "schedule")),
        ("CronJob", ("spec", "jobTemplate")),
        ("CronJob", ("spec", "jobTemplate", "spec", "template")),
        ("RoleBinding", ("roleRef",)),
        ("RoleBinding", ("subjects", 0, "name")),
        ("Role", ("rules", 0, "verbs")),
    ],
)
def test_what_must_be_there_is_missed(kind: str, path: tuple[Any, ...]) -> None:
    copy = deepcopy(of_kind(kind)[0].data)
    place: Any = copy
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    assert not is_valid(copy)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backoffLimit"), 2**31),
        (("spec", "deletionStrategy"), {}),
        (("spec", "deletionStrategy", "onSuccess"), {"policy": "DeleteSelf"}),
        (("spec", "deletionStrategy", "deletionRules"), []),
        (("spec", "deletionStrategy", "deletionRules", 0, "condition", "jobDeploymentStatus"), "Failed"),
        (("spec", "deletionStrategy", "deletionRules", 0, "condition"), {"ttlSeconds": 1}),
        (("spec", "deletionStrategy", "deletionRules", 0, "policy"), "DeleteEverything"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "password"),
        (("spec", "rayClusterSpec", "autoscalerOptions", "version"), "v3"),
        (("spec", "rayClusterSpec", "autoscalerOptions", "resources", "limits", "memory"), "one"),
        (
            ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "ports"),
            [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}],
        ),
        (("metadata", "labels"), {"a": 1}),
        (("apiVersion",), "ray.io/v2"),
    ],
)
def test_values_that_kuberay_refuses(path: tuple[Any, ...], value: Any) -> None:
    assert not is_valid(changed(of_kind("RayJob")[0].data, path, value))


def test_a_key_that_stands_twice_is_an_error() -> None:
    with pytest.raises(Exception, match="a key twice"):
        load_all("spec: {a: 1, a: 2}")
