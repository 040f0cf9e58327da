"""The files of a result that are not tensors: index, config.json, tokenizer, code."""

from __future__ import annotations

import fnmatch
import json
from typing import Any, Final

from plait.errors import CheckpointMalformed, SourceChanged
from plait_service.plan import Plan
from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.checkpoint.model import CONFIG, INDEX
from plait_workers.job import Job
from plait_workers.storage.base import ObjectStore

_COPIED: Final = (
    CONFIG,
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "*processor_config.json",
    "*.py",
    "LICENSE*",
    "NOTICE*",
)
"""What is copied from the first sub-model; training states, logs and other weights are not."""

CARD: Final = "README.md"
_LIMIT: Final = 256 << 20
_TORCH_NAMES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def is_copied(name: str) -> bool:
    """Whether a file of a model's folder belongs into the result."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _COPIED)


def output_keys(plan: Plan) -> list[str]:
    """Every name that a merge writes but the manifest's."""
    copied = [info.key for info in plan.copy_from.others if is_copied(info.key)]
    index = [INDEX] if len(plan.job.shards) > 1 else []
    return [CARD, *copied, *index, *(shard.key for shard in plan.job.shards)]


def small_files(plan: Plan, store: ObjectStore) -> dict[str, bytes]:
    """The small files of the result by name, README.md and plait.json not among them.

    Args:
        store: rooted at the plan's ``copy_from``.

    Raises:
        SourceChanged: a file changed, or went, after the plan was made.
    """
    files: dict[str, bytes] = {}
    for info in plan.copy_from.others:
        if not is_copied(info.key):
            continue
        data = store.get(info.key, limit=_LIMIT)
        after = store.head(info.key)
        if data is None or after is None or after.version != info.version:
            raise SourceChanged("a file changed after the plan was made", where=f"{store.uri}/{info.key}")
        files[info.key] = data
    if CONFIG in files:
        files[CONFIG] = follow_dtype(files[CONFIG], main_dtype(plan.job), f"{store.uri}/{CONFIG}")
    if len(plan.job.shards) > 1:
        files[INDEX] = index_file(plan.job)
    return files


def main_dtype(job: Job) -> Dtype | None:
    """The float dtype that holds most of the result's elements; None if there is none."""
    counts: dict[Dtype, int] = {}
    for tensor in job.tensors:
        if tensor.dtype.kind == "float":
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.elements
    return max(counts, key=lambda dtype: counts[dtype]) if counts else None


def follow_dtype(data: bytes, dtype: Dtype | None, where: str) -> bytes:
    """config.json with ``dtype`` and ``torch_dtype`` as the result has it; else the same bytes."""
    name = _TORCH_NAMES.get(dtype.name) if dtype else None
    try:
        config: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise CheckpointMalformed("not a JSON file", where=where, found=str(error)) from error
    changed = {key: name for key in ("dtype", "torch_dtype") if config.get(key) not in (None, name) and name}
    if not changed:
        return data
    return (json.dumps({**config, **changed}, indent=2, ensure_ascii=False) + "\n").encode()


def index_file(job: Job) -> bytes:
    """``model.safetensors.index.json``, as Hugging Face's libraries write it."""
    weight_map = {
        tensor.name: shard.key
        for shard in job.shards
        for tensor in job.tensors[shard.first : shard.first + len(shard.bounds) - 1]
    }
    total = sum(tensor.nbytes for tensor in job.tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
