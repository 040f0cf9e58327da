"""Plans and merges in this process, and looks at what they leave behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plait.errors import PlaitError, PlanRejected
from plait.spec import MergeSpec, load_spec
from plait_service.budget import Budget, budget_of
from plait_service.driver import Driver, Outcome
from plait_service.plan import Plan
from plait_service.prepare import Prepared, prepare
from plait_workers.methods import METHODS

MEMORY = 64 << 20


@contextmanager
def fails(kind: str) -> Iterator[pytest.ExceptionInfo[PlaitError]]:
    """The block ends in an error of this kind."""
    with pytest.raises(PlaitError) as failed:
        yield failed
    assert failed.value.kind == kind, failed.value


def spec_of(data: Mapping[str, Any]) -> MergeSpec:
    """The spec, checked as the command checks it."""
    return load_spec(json.dumps(data), methods=METHODS)


def prepared_of(data: Mapping[str, Any]) -> Prepared:
    return prepare(spec_of(data))


def plan_of(data: Mapping[str, Any]) -> Plan:
    return prepared_of(data).plan


def problems_of(data: Mapping[str, Any]) -> list[PlaitError]:
    """What is wrong with a spec and its models; there must be something."""
    with pytest.raises(PlanRejected) as refused:
        prepared_of(data)
    return list(refused.value.problems)


def budget_for(prepared: Prepared, memory: int = MEMORY, threads: int = 2, step: int | None = None) -> Budget:
    budget = budget_of(prepared.plan.job, prepared.output, memory=memory, threads=threads)
    return budget if step is None else replace(budget, step_bytes=step, threads=threads)


def merge(
    data: Mapping[str, Any] | Prepared,
    *,
    memory: int = MEMORY,
    threads: int = 2,
    step: int | None = None,
    **driver: Any,
) -> Outcome:
    """Plan and run a merge."""
    prepared = data if isinstance(data, Prepared) else prepared_of(data)
    return Driver(prepared, budget_for(prepared, memory, threads, step), **driver).run()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a result, the working files not among them."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def model_files(folder: Path) -> set[str]:
    """What a reader would take for a model, or for a part of one."""
    if not folder.exists():
        return set()
    return {
        path.name
        for path in folder.iterdir()
        if path.suffix == ".safetensors" or path.name in ("config.json", "model.safetensors.index.json")
    }


def working_files(folder: Path) -> list[str]:
    """What lies in the working folder, folders included; a finished merge leaves not even the folder."""
    private = folder / ".plait"
    return sorted(str(path.relative_to(folder)) for path in (private, *private.rglob("*")) if path.exists())
