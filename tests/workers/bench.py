"""Runs the units of a prepared merge, cut into parts of any size, and knows what must come out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from plait_service.prepare import Prepared
from plait_workers.job import Action, Job, Unit
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import Upload
from plait_workers.storage.local import LocalStore
from plait_workers.unit import UnitRunner
from tests.support.checkpoints import Family, Tensors, make_family, random_tensor, write_model
from tests.support.merging import prepared_of

SHAPES = {
    "a.weight": ("BF16", (301, 7)),
    "b.bias": ("F32", (97,)),
    "c.scale": ("F64", ()),
    "d.empty": ("F16", (0, 5)),
    "e.mixed": ("F16", (55, 11)),
    "f.ids": ("I64", (13,)),
    "g.mask": ("BOOL", (129,)),
    "h.eight": ("F8_E4M3", (333,)),
}


def make_mixed_family(root: Path) -> Family:
    """Three models of many dtypes; one of them has a tensor in another dtype, and so has the base."""
    family = make_family(root, SHAPES)
    family.models[1]["e.mixed"] = random_tensor("BF16", (55, 11), "other")
    write_model(root / "m1", family.models[1])
    return family


class Bench:
    """A prepared merge, cut into parts of any size, and its uploads."""

    def __init__(self, data: dict[str, Any], *, part_size: int = 1001, step: int = 256, **hooks: Any) -> None:
        self.prepared: Prepared = prepared_of(data)
        plan = self.prepared.plan.job
        self.job: Job = replace(
            plan, shards=tuple(replace(shard, part_size=part_size) for shard in plan.shards)
        )
        self.output = LocalStore(Path(self.prepared.output.uri))
        self.step = step
        self.stop = threading.Event()
        self.hooks = hooks
        self.uploads: list[Upload] = [
            self.output.create_upload(shard.key, size=shard.size, metadata={}) for shard in self.job.shards
        ]

    def runner(self, **changes: Any) -> UnitRunner:
        options: dict[str, Any] = {
            "job": self.job,
            "stores": list(self.prepared.stores),
            "output": self.output,
            "uploads": self.uploads,
            "step_bytes": self.step,
            "stop": self.stop,
        }
        return UnitRunner(**{**options, **self.hooks, **changes})

    def run(
        self, units: Sequence[Unit] | None = None, *, threads: int = 1, **changes: Any
    ) -> list[PartRecord]:
        runner = self.runner(**changes)
        local = threading.local()

        def one(unit: Unit) -> PartRecord:
            if not hasattr(local, "workspace"):
                local.workspace = runner.workspace()
            return runner.run(unit, local.workspace)

        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(one, self.job.units() if units is None else units))
        finally:
            runner.readers.close()

    def files(self) -> list[bytes]:
        found = []
        for upload in self.uploads:
            self.output.complete(upload, self.output.list_parts(upload), crc64nvme="0" * 16)
            found.append((Path(self.output.uri) / upload.key).read_bytes())
        return found


def expected(job: Job, models: Sequence[Tensors], base: Tensors) -> tuple[list[bytes], list[list[int]]]:
    """Whole files and each tensor's counters, from every tensor merged at once."""
    bodies, counted = [], []
    for index, out in enumerate(job.tensors):
        counters = np.zeros(2 * job.num_models + 2, np.int64)
        if out.action is Action.MERGE:
            context = job.context(index)
            sources = [
                np.frombuffer(model[out.name].data, kind.storage)
                for model, kind in zip(models, context.inputs, strict=True)
            ]
            kind = context.base
            origin = None if kind is None else np.frombuffer(base[out.name].data, kind.storage)
            result = np.empty(out.elements, out.dtype.storage)
            job.method.merger(context).merge(sources, origin, result, 0, counters)
            bodies.append(result.tobytes())
        else:
            bodies.append((base if out.action is Action.BASE else models[0])[out.name].data)
        counted.append(counters.tolist())
    files = []
    for shard in job.shards:
        stop = shard.first + len(shard.bounds) - 1
        files.append(shard.header + b"".join(bodies[shard.first : stop]))
    return files, counted
