"""Checks a result: its bytes against the manifest, and a sample of them against the sources."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from awscrt.checksums import crc64nvme

from plait.errors import OutputCorrupt, PlaitError, PlanRejected, SourceChanged
from plait.spec import MergeSpec
from plait.spec_storage import StorageSpec
from plait.uri import parse_uri
from plait_service.existing import MANIFEST
from plait_service.manifest import read_manifest
from plait_service.prepare import Prepared, prepare
from plait_workers.job import Unit
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.registry import Stores
from plait_workers.unit import UnitRunner

_STEP = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was checked, and what was found wrong.

    ``recomputed`` counts the parts that were made again from the sources.
    """

    fingerprint: str
    shards: int
    checked_bytes: int
    parts: int
    recomputed: int
    problems: tuple[PlaitError, ...]


def verify(
    uri: str,
    *,
    sample: float,
    threads: int,
    storage: StorageSpec | None = None,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> Verified:
    """Read a result whole, and recompute a share of its parts.

    Cost: the result's bytes once, and ``sample`` of the sources' bytes.

    Args:
        uri: the result's folder.
        sample: share of the parts to recompute, 0 to 1; the choice depends on the fingerprint alone.
        storage: how stores are spoken to, which a result does not tell.

    Raises:
        OutputCorrupt: there is no manifest.
    """
    places = Stores(storage)
    store = places.open(parse_uri(uri))
    manifest = read_manifest(store)
    problems: list[PlaitError] = []
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(lambda shard: _check_shard(store, shard, on_bytes), manifest["shards"]):
            problems += found
    for name, size in manifest["files"].items():
        info = store.head(name)
        if info is None or info.size != size:
            problems.append(
                _corrupt(store, name, f"{size} bytes", "nothing" if info is None else f"{info.size} bytes")
            )
    parts = sum(len(shard["sha256"]) for shard in manifest["shards"])
    recomputed = 0
    if sample > 0:
        recomputed, found = _recompute(manifest, sample, threads, places)
        problems += found
    return Verified(
        fingerprint=manifest["fingerprint"],
        shards=len(manifest["shards"]),
        checked_bytes=sum(shard["size"] for shard in manifest["shards"]),
        parts=parts,
        recomputed=recomputed,
        problems=tuple(problems),
    )


def _corrupt(store: ObjectStore, name: str, expected: str, found: str) -> OutputCorrupt:
    return OutputCorrupt(
        f"a file is not the one that {MANIFEST} speaks of",
        where=f"{store.uri}/{name}",
        expected=expected,
        found=found,
    )


def _check_shard(
    store: ObjectStore, shard: dict[str, Any], on_bytes: Callable[[int], None]
) -> list[PlaitError]:
    """Both checksums of one file; every part that differs is named."""
    name, size, part_size = shard["name"], shard["size"], shard["part_size"]
    info = store.head(name)
    if info is None or info.size != size:
        return [_corrupt(store, name, f"{size} bytes", "nothing" if info is None else f"{info.size} bytes")]
    reader, scratch = store.open(name, info.version), memoryview(bytearray(_STEP))
    scan = reader.scan([(0, size)])
    problems: list[PlaitError] = []
    whole = 0
    try:
        for number, expected in enumerate(shard["sha256"], start=1):
            digest = hashlib.sha256()
            start = (number - 1) * part_size
            stop = min(start + part_size, size)
            for at in range(start, stop, _STEP):
                data = scan.read(at, scratch[: min(_STEP, stop - at)])
                digest.update(data)
                whole = crc64nvme(data, whole)
                on_bytes(len(data))
            if digest.hexdigest() != expected:
                problems.append(
                    _corrupt(
                        store, f"{name}, bytes {start} to {stop}", f"SHA-256 {expected}", digest.hexdigest()
                    )
                )
    finally:
        scan.close()
        reader.close()
    if not problems and f"{whole:016x}" != shard["crc64nvme"]:
        problems.append(_corrupt(store, name, f"CRC64NVME {shard['crc64nvme']}", f"{whole:016x}"))
    return problems


def _recompute(
    manifest: dict[str, Any], sample: float, threads: int, places: Stores
) -> tuple[int, list[PlaitError]]:
    """Make a sample of parts again, and compare their SHA-256. A source that is gone is a problem too."""
    try:
        prepared = _prepare_again(manifest, places)
    except PlaitError as error:
        return 0, [error]
    same = prepared.plan.job.fingerprint == manifest["fingerprint"]
    units = sample_units(prepared.plan.job.units(), sample, manifest["fingerprint"])
    runner = UnitRunner(
        job=prepared.plan.job,
        stores=list(prepared.stores),
        output=prepared.output,
        uploads=[],
        step_bytes=_STEP,
        stop=threading.Event(),
    )

    def again(unit: Unit) -> PlaitError | None:
        record = runner.recompute(unit, runner.workspace())
        shard = manifest["shards"][unit.shard]
        expected = shard["sha256"][unit.number - 1]
        if record.sha256 == expected:
            return None
        where = f"{shard['name']}, part {unit.number}"
        if not same:
            return _sources_changed(f"other bytes for {where}")
        return _corrupt(prepared.output, where, f"SHA-256 {record.sha256}, recomputed", expected)

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(again, units))
    runner.readers.close()
    return len(units), [result for result in results if result is not None]


def sample_units(units: Sequence[Unit], sample: float, fingerprint: str) -> list[Unit]:
    """A share of the units, at least one, the same ones for the same fingerprint."""
    count = min(len(units), max(1, round(sample * len(units))))
    return random.Random(fingerprint).sample(list(units), count)


def _prepare_again(manifest: dict[str, Any], places: Stores) -> Prepared:
    """The manifest's merge, planned from the sources as they are now."""
    try:
        spec = MergeSpec.model_validate_json(json.dumps(manifest["spec"]))
        prepared = prepare(spec, places=places)
    except PlanRejected as error:
        raise _sources_changed(str(error)) from error
    planned = [(shard.key, shard.size, shard.part_size) for shard in prepared.plan.job.shards]
    if planned != [(shard["name"], shard["size"], shard["part_size"]) for shard in manifest["shards"]]:
        raise _sources_changed("other tensors")
    return prepared


def _sources_changed(found: str) -> SourceChanged:
    return SourceChanged(
        "the sources are not the ones that were merged, so the result cannot be recomputed",
        found=found,
        hint="With --sample 0 only the checksums are verified",
    )
