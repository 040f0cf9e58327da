from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awscrt.checksums import crc64nvme

from plait_workers.job import Action
from plait_workers.storage.local import LocalStore
from tests.support.checkpoints import Family, random_tensor, read_model, write_model
from tests.workers.bench import Bench, expected, make_mixed_family

PART_SIZES = (1 << 20, 4096, 1001, 333)
METHODS: list[Any] = [
    {"name": "select", "resample": 2},
    {"name": "select", "resample": 0},
]


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_mixed_family(tmp_path)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("step", [64, 1000, 1 << 20])
@pytest.mark.parametrize("part_size", PART_SIZES)
def test_parts_are_the_whole_however_it_is_cut(
    family: Family, part_size: int, step: int, method: Any
) -> None:
    bench = Bench(family.spec(method), part_size=part_size, step=step)
    records = bench.run()
    files, counted = expected(bench.job, family.models, family.base)
    assert bench.files() == files
    totals = np.zeros((len(bench.job.tensors), 8), np.int64)
    for unit, record in zip(bench.job.units(), records, strict=True):
        start, stop = bench.job.shards[unit.shard].part_range(unit.number)
        part = files[unit.shard][start:stop]
        assert (record.unit, record.size) == (unit, stop - start)
        assert record.upload == bench.uploads[unit.shard].id
        assert record.crc64nvme == crc64nvme(part)
        assert record.sha256 == hashlib.sha256(part).hexdigest()
        for tensor, counters in record.counters.items():
            totals[tensor] += counters
    assert totals.tolist() == counted


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_another_output_dtype_and_weights(family: Family, dtype: str) -> None:
    models = [
        {"uri": str(family.root / f"m{i}"), "weight": weight} for i, weight in enumerate((1.0, 0.25, 3.0))
    ]
    bench = Bench(family.spec(models=models, dtype=dtype))
    bench.run()
    assert bench.files() == expected(bench.job, family.models, family.base)[0]
    held = read_model(family.out)
    assert {held[name].dtype for name in ("a.weight", "b.bias", "c.scale", "e.mixed")} == {dtype.upper()}


def test_neither_order_nor_threads_nor_processes_matter(family: Family) -> None:
    first = Bench(family.spec())
    records = first.run()
    files = first.files()
    second = Bench(family.spec(output=str(family.root / "out2")), part_size=1001, step=512)
    units = second.job.units()
    # Half of the units by another store, as another process has it; some of them twice.
    other = LocalStore(Path(second.output.uri))
    mixed = second.run(units[1::2][::-1], threads=3) + second.run(units[::2], threads=3, output=other)
    second.run(units[::5], threads=2)
    assert second.files() == files
    by_unit = {record.unit: record for record in mixed}
    for record in records:
        again = by_unit[record.unit]
        assert (again.sha256, again.crc64nvme, again.counters) == (
            record.sha256,
            record.crc64nvme,
            record.counters,
        )


def test_recompute_writes_nothing_and_tells_the_same(family: Family) -> None:
    bench = Bench(family.spec())
    runner = bench.runner()
    workspace = runner.workspace()
    recomputed = [runner.recompute(unit, workspace) for unit in bench.job.units()]
    assert all(not bench.output.list_parts(upload) for upload in bench.uploads)
    runner.readers.close()
    assert [replace(record, upload="") for record in bench.run()] == recomputed


def test_average_copies_what_has_no_mean(family: Family) -> None:
    for model in family.models:
        model |= {name: family.base[name] for name in ("f.ids", "g.mask")}
    for index, model in enumerate(family.models):
        write_model(family.root / f"m{index}", model)
    bench = Bench(family.spec("average"))
    assert [tensor.name for tensor in bench.job.tensors if tensor.action is Action.IDENTICAL] == [
        "f.ids",
        "g.mask",
    ]
    bench.run()
    assert bench.files() == expected(bench.job, family.models, family.base)[0]


def test_what_only_the_base_has(family: Family) -> None:
    base = {**family.base, "z.alone": random_tensor("F32", (501,), "alone")}
    write_model(family.root / "base", base)
    bench = Bench(family.spec(on_missing="keep-base"))
    assert bench.job.tensors[-1].action is Action.BASE
    bench.run()
    assert bench.files() == expected(bench.job, family.models, base)[0]
