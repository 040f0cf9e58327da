"""A plan: everything that a merge will do, decided from headers alone.

``make_plan`` is pure: equal checkpoints and specs give equal plans, and it reads nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from plait.errors import InputError, PlaitError, PlanRejected, SpecInvalid
from plait.spec import MergeSpec
from plait.spec_model import NOT_OF_THE_RESULT
from plait_service.costs import Costs, costs_of
from plait_service.layout import lay_out
from plait_service.tensors import Matched, match_tensors
from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.checkpoint.model import Checkpoint
from plait_workers.job import Job, Source
from plait_workers.methods.base import Method

ALGORITHM: Final = "plait.1"
"""Part of every fingerprint; changes when the same inputs would give other bytes."""

_CODES: Final = tuple(DTYPES.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A merge, decided.

    Args:
        spec: resolved: globs expanded, defaults filled in.
        job: what workers do.
        costs: what it reads and writes.
        law: the method in one line, with its exact probabilities or factors.
        notes: what a user should know and need not change.
        copy_from: the checkpoint that small files come from.
    """

    spec: MergeSpec
    job: Job
    costs: Costs
    law: str
    notes: tuple[str, ...]
    copy_from: Checkpoint

    @property
    def num_parameters(self) -> int:
        """Elements of the result."""
        return sum(tensor.elements for tensor in self.job.tensors)


def make_plan(
    *,
    spec: MergeSpec,
    method: Method,
    weights: Sequence[float],
    models: Sequence[Checkpoint],
    base: Checkpoint | None,
    copy_from: Checkpoint,
) -> Plan:
    """Plan a merge.

    Args:
        spec: resolved, so that it names every model of ``models``.
        method: the spec's method.
        weights: (K,) as in the spec.
        models: K sub-models, in the spec's order.
        base: the spec's base.
        copy_from: where config.json and other small files come from.

    Raises:
        PlanRejected: with every problem that there is.
    """
    problems = method.check_weights(weights)
    if method.needs_base and base is None:
        problems.append(
            SpecInvalid(
                "base: missing",
                expected=f"the model that the sub-models were fine-tuned from, for method {method.name}",
                hint="Name it, or use resample: 0, which needs none" if method.name == "select" else None,
            )
        )
    matched = match_tensors(
        models=models, base=base, method=method, dtype=spec.dtype, keep_base=spec.on_missing == "keep-base"
    )
    problems += matched.problems
    if not matched.tensors and not matched.problems:
        problems.append(InputError("the sub-models have no tensors", where=models[0].uri))
    if problems:
        raise PlanRejected(problems)
    try:
        shards = lay_out(matched.tensors, shard_size=spec.shard_size, part_size=spec.part_size)
    except PlaitError as error:
        raise PlanRejected([error]) from error
    sources = [*models, *([base] if base else [])]
    job = Job(
        fingerprint=_fingerprint(spec, sources, copy_from, [shard.part_size for shard in shards]),
        method=method,
        seed=spec.seed,
        weights=tuple(weights),
        sources=tuple(Source(uri=source.uri, files=source.files) for source in sources),
        num_models=len(models),
        tensors=tuple(matched.tensors),
        shards=tuple(shards),
        dtypes=_CODES,
        twins=_twins(matched, sources),
        **_columns(matched, sources),
    )
    return Plan(
        spec=spec,
        job=job,
        costs=costs_of(job),
        law=method.describe(weights),
        notes=tuple(matched.notes),
        copy_from=copy_from,
    )


def _columns(matched: Matched, sources: Sequence[Checkpoint]) -> dict[str, Any]:
    rows = matched.rows
    file_of = np.full(rows.shape, -1, np.int32)
    offset_of = np.zeros(rows.shape, np.int64)
    dtype_of = np.zeros(rows.shape, np.int8)
    code = {dtype.name: index for index, dtype in enumerate(_CODES)}
    for index, source in enumerate(sources):
        have = rows[index] >= 0
        picked = rows[index, have]
        codes = np.array([code[dtype.name] for dtype in source.dtypes], np.int8)
        file_of[index, have] = source.file[picked]
        offset_of[index, have] = source.offset[picked]
        dtype_of[index, have] = codes[picked]
    return {"file_of": file_of, "offset_of": offset_of, "dtype_of": dtype_of}


def _twins(matched: Matched, sources: Sequence[Checkpoint]) -> dict[int, tuple[tuple[int, int, int], ...]]:
    return {
        tensor: tuple(
            (source, int(sources[source].file[row]), int(sources[source].offset[row]))
            for source, row in copies
        )
        for tensor, copies in matched.twins.items()
    }


def _fingerprint(
    spec: MergeSpec, sources: Sequence[Checkpoint], copy_from: Checkpoint, part_sizes: Sequence[int]
) -> str:
    """A hash of all that decides the result's bytes: spec, pinned sources, parts, algorithm."""
    what = {
        "algorithm": ALGORITHM,
        "spec": spec.model_dump(mode="json", exclude=set(NOT_OF_THE_RESULT)),
        "sources": [
            {"uri": source.uri, "files": [asdict(file) for file in source.files]} for source in sources
        ],
        "small_files": [[info.key, info.size, info.version] for info in copy_from.others],
        "part_sizes": sorted(set(part_sizes)),
    }
    canonical = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def needs_agreement(plan: Plan) -> list[int]:
    """Tensors that are quantised codes, and so must be the same in all sources before work starts."""
    return [index for index, tensor in enumerate(plan.job.tensors) if tensor.quantized]
