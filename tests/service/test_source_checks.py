"""Sources are verified from what was read of them; and reads are exactly those that were announced."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import SourceCorrupt
from plait_service.plan import Plan
from plait_workers.checksums import ALGORITHMS
from plait_workers.ranges import ranges_of
from tests.support.checked_stores import RemoteLike, remote_like
from tests.support.checkpoints import Family, make_family
from tests.support.merging import digests, merge, plan_of

SHAPES = {
    "a.weight": ("BF16", (300, 201)),
    "b.weight": ("F32", (100, 77)),
    "c.weight": ("BF16", (999,)),
    "d.weight": ("BF16", (333,)),
    "lm_head.weight": ("F16", (50, 301)),
}
CUTS: list[dict[str, Any]] = [
    {},
    {"part_size": 70_001},
    {"part_size": "64KiB", "shard_size": "100KB"},
    {"method": {"name": "average"}, "part_size": 65_537},
    {"dtype": "f32", "part_size": 65_539},
]


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, SHAPES)


def announced(plan: Plan) -> tuple[int, int]:
    """Requests and bytes of all units."""
    job = plan.job
    ranges = [
        found
        for unit in job.units()
        for lane in ranges_of(job, job.shards[unit.shard].segments(unit.number)).values()
        for found in lane
    ]
    return len(ranges), sum(stop - start for start, stop in ranges)


@pytest.mark.parametrize("changes", CUTS)
def test_a_merge_reads_what_the_plan_counts(family: Family, changes: dict[str, Any]) -> None:
    prepared = remote_like(family.spec(**changes))
    merge(prepared, threads=1, step=4096)
    stores: list[RemoteLike] = list(prepared.stores)  # type: ignore[arg-type]
    costs = prepared.plan.costs
    assert sum(store.ranges_begun for store in stores) == costs.read_requests == announced(prepared.plan)[0]
    assert sum(store.bytes_read for store in stores) == costs.bytes_read


@given(part=st.integers(65_536, 200_000), shard=st.integers(1000, 400_000))
def test_counting_and_announcing_agree(
    tmp_path_factory: pytest.TempPathFactory, part: int, shard: int
) -> None:
    family = _FAMILY.get(tmp_path_factory)
    plan = plan_of(family.spec(part_size=part, shard_size=shard))
    assert announced(plan)[0] == plan.costs.read_requests


class _FAMILY:
    made: ClassVar[list[Family]] = []

    @classmethod
    def get(cls, factory: pytest.TempPathFactory) -> Family:
        if not cls.made:
            cls.made.append(make_family(factory.mktemp("announced"), SHAPES))
        return cls.made[0]


@pytest.mark.parametrize("changes", CUTS)
@pytest.mark.parametrize("kept", [True, False])
def test_the_manifest_tells_each_files_checksum(family: Family, changes: dict[str, Any], kept: bool) -> None:
    class Store(RemoteLike):
        keeps_checksums = kept

    merge(remote_like(family.spec(**changes), Store), threads=2, step=4096)
    manifest = json.loads((family.out / "plait.json").read_text())
    for source in manifest["sources"]:
        if source["role"] == "base" and manifest["spec"]["method"]["name"] == "average":
            assert "verified" not in source["files"][0]
            continue
        for file in source["files"]:
            data = Path(source["uri"], file["name"]).read_bytes()
            assert file["crc64nvme"] == f"{crc64nvme(data):016x}"
            assert file["verified"] == kept


@pytest.mark.parametrize("seed", range(6))
def test_what_arrives_damaged_is_read_again(family: Family, seed: int) -> None:
    spec = family.spec(part_size="64KiB")
    merge(spec)
    expected = digests(family.out)["model.safetensors"]
    chance = random.Random(seed)
    left = [chance.randrange(1, 40), chance.randrange(40, 80)]

    class Store(RemoteLike):
        def damage(self, key: str, offset: int) -> bool:
            left[:] = [count - 1 for count in left]
            return 0 in left

    prepared = remote_like(spec, Store)
    outcome = merge(prepared, overwrite=True, threads=1, step=4096)
    assert outcome.merged_parts > len(prepared.plan.job.units())
    assert digests(family.out)["model.safetensors"] == expected


def test_a_source_that_is_damaged_where_it_lies(family: Family) -> None:
    class Store(RemoteLike):
        def head(self, key: str) -> Any:
            info = super().head(key)
            if info is not None and self.uri.endswith("m1") and key == "model.safetensors":
                info.checksums["crc64nvme"] = "0" * 16  # type: ignore[index]
            return info

    with pytest.raises(SourceCorrupt) as corrupt:
        merge(remote_like(family.spec(), Store))
    assert "m1/model.safetensors" in str(corrupt.value)
    assert not [path for path in family.out.iterdir() if path.is_file()]


def test_a_line_that_always_damages(family: Family) -> None:
    class Store(RemoteLike):
        reads = 0

        def damage(self, key: str, offset: int) -> bool:
            type(self).reads += 1
            return type(self).reads % 2 == 0

    with pytest.raises(SourceCorrupt):
        merge(remote_like(family.spec(), Store), threads=1, step=4096)
    assert not [path for path in family.out.iterdir() if path.is_file()]


@given(data=st.binary(max_size=200), cut=st.integers(0, 200), name=st.sampled_from(sorted(ALGORITHMS)))
def test_checksums_of_neighbours_are_joined(data: bytes, cut: int, name: str) -> None:
    crc = ALGORITHMS[name]
    first, second = data[:cut], data[cut:]
    joined = crc.combine(crc.update(first, 0), crc.update(second, 0), len(second))
    assert joined == crc.update(data, 0) == crc.update(second, crc.update(first, 0))
    assert len(crc.hexadecimal(joined)) == 2 * crc.size
