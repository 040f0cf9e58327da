"""The manifests in deploy/, as written and as kustomize renders them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = DEPLOY / "kuberay"
KUSTOMIZATIONS = (KUBERAY, KUBERAY / "merge")
"""The folders that are applied; nightly/ is part of the first."""


class _OnceLoader(yaml.SafeLoader):
    """PyYAML, but a key that stands twice in a mapping is an error, as in Kubernetes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if len(own) != len(set(own)):
            raise yaml.constructor.ConstructorError(None, None, f"a key twice: {own}", node.start_mark)
        return super().construct_mapping(node, deep)


def load_all(text: str) -> list[Any]:
    """All documents of a YAML text."""
    return [document for document in yaml.load_all(text, _OnceLoader) if document is not None]


@dataclass(frozen=True)
class Manifest:
    """One object of Kubernetes, and where it is written."""

    where: str
    data: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        return str(self.data["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.where}:{self.kind}/{self.name}"


def _written() -> Iterator[Manifest]:
    for path in sorted(KUBERAY.rglob("*.yaml")):
        for data in load_all(path.read_text()):
            if "kind" in data and data["kind"] != "Kustomization":
                yield Manifest(str(path.relative_to(KUBERAY)), data)


WRITTEN = tuple(_written())
"""Every object in the folder, in the order of its files."""


def of_kind(kind: str) -> list[Manifest]:
    """The written objects of this kind; at least one."""
    found = [manifest for manifest in WRITTEN if manifest.kind == kind]
    assert found, kind
    return found


@cache
def rendered() -> list[Manifest]:
    """What `kubectl apply -k` would send, by kubectl's own kustomize."""
    kubectl = Path(sys.executable).with_name("kubectl")
    found = []
    for folder in KUSTOMIZATIONS:
        run = subprocess.run(
            [kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        found += [Manifest(f"rendered {folder.name}", data) for data in load_all(run.stdout)]
    return found


def clusters() -> dict[str, dict[str, Any]]:
    """The Ray cluster of each manifest that has one."""
    specs = {str(manifest): manifest.data["spec"] for manifest in of_kind("RayCluster")}
    return specs | {str(job): job.data["spec"]["rayClusterSpec"] for job in of_kind("RayJob")}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template: where it stands, and its spec."""
    for where, cluster in clusters().items():
        yield f"{where} head", cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{where} {group['groupName']}", group["template"]["spec"]
    for job in of_kind("RayJob"):
        yield f"{job} submitter", job.data["spec"]["submitterPodTemplate"]["spec"]
    for cron in of_kind("CronJob"):
        yield str(cron), cron.data["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container: where it stands, and what it says; KubeRay's autoscaler included."""
    for where, pod in pods():
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            yield f"{where} {container['name']}", container
    for where, cluster in clusters().items():
        yield f"{where} autoscaler", cluster["autoscalerOptions"]


def walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every node of a document, with the way to it."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from walk(child, (*path, key))
