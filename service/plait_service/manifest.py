"""``plait.json``: what is in a result, where it came from, and how to recompute it.

It is written last, holds no time and no machine's name, and so is the same bytes for the same job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from plait import __version__
from plait.errors import OutputCorrupt
from plait.spec_model import NOT_OF_THE_RESULT
from plait_service.existing import MANIFEST
from plait_service.finished_parts import FinishedParts
from plait_service.plan import ALGORITHM, Plan
from plait_service.publish import shard_crc
from plait_workers.job import Action, SourceFile
from plait_workers.storage.base import ObjectStore

FORMAT: Final = 1
_LIMIT: Final = 1 << 30


def build_manifest(
    plan: Plan,
    finished: FinishedParts,
    files: Mapping[str, int],
    checksums: Mapping[tuple[int, int], str] | None = None,
) -> bytes:
    """The manifest's bytes.

    Args:
        finished: every part.
        files: small files by name, with their size.
        checksums: of source files, by (source, file), as they were read.
    """
    job = plan.job
    manifest = {
        "format": FORMAT,
        "fingerprint": job.fingerprint,
        "algorithm": ALGORITHM,
        "plait": __version__,
        "law": plan.law,
        "spec": plan.spec.model_dump(mode="json", exclude_none=True, exclude=set(NOT_OF_THE_RESULT)),
        "sources": [
            {
                "uri": source.uri,
                "role": "base" if index == job.num_models else "sub-model",
                "files": [
                    _source_file(file, (checksums or {}).get((index, number)))
                    for number, file in enumerate(source.files)
                ],
            }
            for index, source in enumerate(job.sources)
        ],
        "shards": _shards(plan, finished),
        "files": dict(sorted(files.items())),
        "tensors": _tensors(plan, finished),
        "notes": list(plan.notes),
    }
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def _source_file(file: SourceFile, checksum: str | None) -> dict[str, Any]:
    """A source file and its pin; ``verified`` says that its store keeps the checksum that was found."""
    found: dict[str, Any] = {"name": file.key, "size": file.size, "version": file.version}
    if checksum is not None:
        found |= {file.algorithm: checksum, "verified": bool(file.checksum)}
    return found


def _shards(plan: Plan, finished: FinishedParts) -> list[dict[str, Any]]:
    """Size and checksums. SHA-256 is kept by part: parts are made by many workers, in any order."""
    shards = []
    for index, shard in enumerate(plan.job.shards):
        parts = finished.of_shard(index)
        shards.append(
            {
                "name": shard.key,
                "size": shard.size,
                "crc64nvme": f"{shard_crc(parts):016x}",
                "part_size": shard.part_size,
                "sha256": [part.sha256 for part in parts],
            }
        )
    return shards


def _tensors(plan: Plan, finished: FinishedParts) -> dict[str, Any]:
    job, counters = plan.job, finished.counters()
    return {
        tensor.name: describe_tensor(counters.get(index), tensor.elements, job.num_models, tensor.action)
        for index, tensor in enumerate(job.tensors)
    }


def describe_tensor(
    counters: list[int] | None, elements: int, num_models: int, action: Action
) -> dict[str, Any]:
    """A tensor's statistics: shares of its elements by where they come from, non-finite inputs.

    Shares are of methods that take elements; an average takes none.
    """
    if action is not Action.MERGE:
        return {"elements": elements, "copied": action.value}
    found: dict[str, Any] = {"elements": elements}
    if counters is None:
        return found
    taken, kept, bad = counters[:num_models], counters[num_models], counters[num_models + 1 :]
    if sum(taken) + kept:
        found["taken"] = [round(count / elements, 6) for count in taken]
        found["kept_base"] = round(kept / elements, 6)
    if any(bad):
        found["non_finite_inputs"] = bad
    return found


def read_manifest(store: ObjectStore) -> dict[str, Any]:
    """The manifest of a result.

    Raises:
        OutputCorrupt: there is none, or it is not one of ours.
    """
    data = store.get(MANIFEST, limit=_LIMIT)
    where = f"{store.uri}/{MANIFEST}"
    if data is None:
        raise OutputCorrupt("no result of Plait here", where=where, expected=f"a {MANIFEST}", found="none")
    try:
        manifest = json.loads(data)
        if manifest["format"] != FORMAT or not isinstance(manifest["shards"], list):
            raise KeyError("format")
    except (ValueError, KeyError, TypeError) as error:
        raise OutputCorrupt("the manifest cannot be read", where=where, found=str(error)[:200]) from error
    return dict(manifest)
