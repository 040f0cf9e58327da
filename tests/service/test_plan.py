"""Plans from headers alone: layout, parts, costs, budget, fingerprint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors

from plait.errors import BudgetTooSmall, PlaitError, StoreUnavailable
from plait_service.budget import budget_of
from plait_service.plan import Plan
from plait_service.prepare import expand
from plait_service.show import plan_as_text
from plait_workers.job import HEADER
from plait_workers.storage.registry import Stores
from tests.support.checkpoints import Family, Shapes, make_family, stored_order, write_model
from tests.support.merging import (
    budget_for,
    digests,
    fails,
    merge,
    plan_of,
    prepared_of,
    problems_of,
    spec_of,
)
from tests.support.stores import on_full_disk, with_counting

MIXED: Shapes = {
    "odd": ("U8", (33,)),
    "a": ("BF16", (300, 257)),
    "empty": ("F32", (0, 7)),
    "b": ("F32", (20_011,)),
    "scalar": ("F64", ()),
    "c": ("F16", (64, 64, 9)),
}
KIB = 1 << 10


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, MIXED)


def header_names(plan: Plan) -> list[str]:
    return [name for shard in plan.job.shards for name in stored_order(shard.header)]


class TestLayout:
    @pytest.mark.parametrize("shard_size", [1000, 100_000, "5GB"])
    @pytest.mark.parametrize("part_size", ["64KiB", 70_001, None])
    def test_parts_tile_shards_that_the_library_reads(
        self, family: Family, shard_size: object, part_size: object
    ) -> None:
        plan = plan_of(family.spec(shard_size=shard_size, part_size=part_size))
        tensors = {tensor.name: tensor for tensor in plan.job.tensors}
        for shard in plan.job.shards:
            whole = shard.header + bytes(shard.size - len(shard.header))
            read = dict(safetensors.deserialize(whole))
            assert all(tuple(read[name]["shape"]) == tensors[name].shape for name in read)
            assert all(read[name]["dtype"] == tensors[name].dtype.name for name in read)
            at = 0
            for number in range(1, shard.num_parts + 1):
                start, stop = shard.part_range(number)
                assert start == at
                assert stop - start == shard.part_size or number == shard.num_parts
                for tensor, begin, end in shard.segments(number):
                    offset = 0 if tensor == HEADER else int(shard.bounds[tensor - shard.first])
                    assert offset + begin == at
                    at = offset + end
                assert at == stop
            assert at == shard.size

    def test_a_shard_ends_before_it_is_too_large(self, family: Family) -> None:
        plan = plan_of(family.spec(shard_size=100_000))
        data = [shard.size - len(shard.header) for shard in plan.job.shards]
        alone = [len(shard.bounds) == 2 for shard in plan.job.shards]
        assert all(size <= 100_000 or single for size, single in zip(data, alone, strict=True))
        names = [f"model-{n:05d}-of-{len(data):05d}.safetensors" for n in range(1, len(data) + 1)]
        assert [shard.key for shard in plan.job.shards] == names
        assert len(data) > 1
        assert [shard.key for shard in plan_of(family.spec()).job.shards] == ["model.safetensors"]

    def test_the_order_is_that_of_the_first_sub_model(self, family: Family) -> None:
        for index in (1, 2):
            folder = family.root / f"m{index}"
            (folder / "model.safetensors").unlink()
            write_model(folder, dict(reversed(family.models[index].items())), shards=2 + index)
        assert header_names(plan_of(family.spec(shard_size=100_000))) == list(MIXED)
        last_first = family.spec(models=[str(family.root / "m2"), str(family.root / "m0")])
        assert header_names(plan_of(last_first)) == list(reversed(MIXED))

    def test_parts_are_16_mib_unless_there_would_be_too_many(self, tmp_path: Path) -> None:
        family = sparse(tmp_path, {"a": 200 << 30})
        shard = plan_of(family).job.shards[0]
        assert shard.part_size == 21 << 20  # 200 GiB / 10,000, rounded up to MiB
        assert plan_of(sparse(tmp_path / "small", {"a": 1 << 30})).job.shards[0].part_size == 16 << 20
        (problem,) = problems_of({**family, "part_size": "1MiB"})
        assert problem.kind == "spec-invalid"
        assert "part_size" in str(problem)


def sparse(root: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """A spec of two models whose data are holes of these sizes: only headers can be read fast."""
    offsets, header = 0, {}
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offsets, offsets + size]}
        offsets += size
    raw = json.dumps(header).encode()
    for index in range(2):
        folder = root / f"m{index}"
        folder.mkdir(parents=True)
        with open(folder / "model.safetensors", "wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            file.truncate(8 + len(raw) + offsets)
    models = [str(root / "m0"), str(root / "m1")]
    method = {"name": "select", "resample": 0}
    return {"models": models, "method": method, "output": str(root / "out"), "shard_size": "1TB"}


class TestCosts:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"method": {"name": "select", "resample": 0}},
            {"dtype": "f32", "shard_size": 50_000},
            {"method": {"name": "average"}, "part_size": 70_001},
        ],
        ids=str,
    )
    def test_they_are_what_a_merge_reads_and_writes(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        shapes = {name: what for name, what in MIXED.items() if name != "odd"}
        family = make_family(tmp_path, {"before": ("F32", (5,)), **shapes}, models=2)
        prepared, stores = with_counting(prepared_of(family.spec(**{"part_size": "64KiB", **changes})))
        merge(prepared, threads=1, step=4099)
        costs = prepared.plan.costs
        assert costs.bytes_read == sum(store.bytes_read for store in stores)
        shards = [path.stat().st_size for path in family.out.glob("*.safetensors")]
        assert costs.bytes_written == sum(shards)
        assert costs.num_parts == costs.write_requests
        assert costs.num_parts == sum(-(-size // prepared.plan.job.shards[0].part_size) for size in shards)
        assert costs.read_requests == brute_force_requests(prepared.plan)

    def test_tied_copies_count_too(self, tmp_path: Path) -> None:
        family = make_family(tmp_path, {"embed_tokens.weight": ("BF16", (500, 100))}, models=2)
        for name, tensors in (("base", family.base), *zip(("m0", "m1"), family.models, strict=True)):
            twice = {**tensors, "lm_head.weight": tensors["embed_tokens.weight"]}
            write_model(tmp_path / name, twice, config={"tie_word_embeddings": True})
        spec = family.spec(part_size="64KiB", dtype="f32")
        prepared, stores = with_counting(prepared_of(spec))
        merge(prepared, threads=1)
        assert prepared.plan.costs.bytes_read == sum(store.bytes_read for store in stores)


def brute_force_requests(plan: Plan) -> int:
    """Ranges in the order of the output, those of one part and file joined when 64 KiB apart at most."""
    job, requests = plan.job, 0
    for source in range(len(job.sources)):
        for shard in job.shards:
            for number in range(1, shard.num_parts + 1):
                last: tuple[int, int] | None = None
                for tensor, begin, end in shard.segments(number):
                    if tensor == HEADER or source not in job.sources_of(tensor):
                        continue
                    width = job.tensors[tensor].dtype.itemsize
                    own = job.dtypes[job.dtype_of[source, tensor]].itemsize
                    file, at = int(job.file_of[source, tensor]), int(job.offset_of[source, tensor])
                    start, stop = at + begin // width * own, at + -(-end // width) * own
                    joined = last is not None and last[0] == file and 0 <= start - last[1] <= 64 * KIB
                    requests += not joined
                    last = (file, stop)
    return requests


class TestBudget:
    def test_it_holds_one_part_and_its_steps_at_least(self, family: Family) -> None:
        prepared = prepared_of(family.spec(part_size="64KiB"))
        with pytest.raises(BudgetTooSmall) as refused:
            budget_for(prepared, memory=64 * KIB, threads=4)
        assert refused.value.expected
        assert "--memory" in str(refused.value)
        assert refused.value.exit_status == 2
        assert not family.out.exists()

    @pytest.mark.parametrize("memory", [500 * KIB, 1 << 20, 8 << 20, 1 << 30])
    def test_more_memory_never_makes_other_parts(self, family: Family, memory: int) -> None:
        prepared = prepared_of(family.spec(part_size="64KiB"))
        budget = budget_of(prepared.plan.job, prepared.output, memory=memory, threads=8)
        assert budget.peak <= memory
        assert 1 <= budget.threads <= 8
        assert budget.step_bytes >= 64 * KIB


class TestSpace:
    def test_no_space_is_found_out_before_anything_is_written(self, family: Family) -> None:
        with fails("no-space") as refused:
            merge(on_full_disk(prepared_of(family.spec())))
        assert str(family.out) in str(refused.value)
        assert not family.out.exists()

    def test_a_result_that_is_there_needs_none(self, family: Family) -> None:
        merge(family.spec())
        before = digests(family.out)
        assert merge(on_full_disk(prepared_of(family.spec()))).already_done
        assert merge(on_full_disk(prepared_of(family.spec())), overwrite=True).merged_parts == 1
        assert digests(family.out) == before


class TestFingerprint:
    def test_it_follows_what_decides_the_bytes(self, family: Family) -> None:
        def fingerprint(**changes: Any) -> str:
            return plan_of(family.spec(**changes)).job.fingerprint

        seen = [fingerprint()]
        assert fingerprint() == seen[0]
        seen += [fingerprint(seed=1), fingerprint(part_size="64KiB"), fingerprint(dtype="f32")]
        seen += [fingerprint(method={"name": "select", "resample": 2}), fingerprint(shard_size=100_000)]
        seen += [fingerprint(models=list(reversed(family.spec()["models"])))]
        seen += [
            fingerprint(models=[{"uri": uri, "weight": n} for n, uri in enumerate(family.spec()["models"])])
        ]
        os.utime(family.root / "m1" / "model.safetensors")
        seen.append(fingerprint())
        (family.root / "m0" / "config.json").write_text("{}")
        seen.append(fingerprint())
        assert len(set(seen)) == len(seen)

    def test_memory_and_threads_are_no_part_of_it(self, family: Family) -> None:
        first = merge(family.spec(), memory=1 << 30, threads=4)
        assert merge(family.spec(), memory=17 << 20, threads=1).already_done
        assert first.fingerprint == plan_of(family.spec()).job.fingerprint


class TestGlobs:
    def test_they_are_sorted_as_people_count(self, tmp_path: Path) -> None:
        family = make_family(tmp_path, {"a": ("BF16", (9,))}, models=1)
        for number in (10, 2, 1):
            write_model(tmp_path / f"order-{number}", family.models[0])
        (tmp_path / "order-notes.txt").write_text("not a folder")
        spec = family.spec(models=[str(tmp_path / "m0"), {"glob": str(tmp_path / "order-*"), "weight": 2.0}])
        wanted = [str(tmp_path / name) for name in ("m0", "order-1", "order-2", "order-10")]
        prepared = prepared_of(spec)
        assert [source.uri for source in prepared.plan.job.sources[:4]] == wanted
        assert prepared.plan.job.weights == (1.0, 2.0, 2.0, 2.0)
        lines = plan_as_text(prepared, budget_for(prepared)).splitlines()
        shown = [line.split()[-1] for line in lines if any(line.endswith(uri) for uri in wanted)]
        assert shown == wanted

    def test_one_that_finds_nothing_or_a_model_twice_is_an_error(self, family: Family) -> None:
        (problem,) = problems_of(family.spec(models=[{"glob": str(family.root / "x*")}]))
        assert problem.kind == "source-missing"
        assert "x*" in str(problem)
        twice = [str(family.root / "m1"), {"glob": str(family.root / "m*")}]
        (problem,) = problems_of(family.spec(models=twice))
        assert problem.kind == "spec-invalid"
        assert str(family.root / "m1") in str(problem)

    def test_what_is_wrong_with_the_others_comes_along(self, family: Family) -> None:
        models = [str(family.root / "nowhere"), {"glob": str(family.root / "x*")}]
        problems = problems_of(family.spec(models=models, base="nosuch://there"))
        assert [(problem.kind, problem.where.rsplit("/")[-1]) for problem in problems] == [
            ("source-missing", "x*"),
            ("spec-invalid", "there"),
            ("source-missing", "nowhere"),
        ]

    def test_a_store_that_does_not_answer_is_not_asked_twice(
        self, family: Family, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def find(*_arguments: object) -> list[str]:
            raise StoreUnavailable("no answer", where="s3://far")

        monkeypatch.setattr("plait_service.prepare.find_folders", find)
        (problem,) = problems_of(family.spec(models=[{"glob": "s3://far/x*"}, str(family.root / "nowhere")]))
        assert problem.kind == "store-unavailable"

    def test_expanding_changes_nothing_else(self, family: Family) -> None:
        spec = spec_of(family.spec(models=[{"glob": str(family.root / "m[0-9]")}], seed=5))
        named = spec_of(family.spec(seed=5))
        assert expand(spec, Stores()) == expand(named, Stores())


def test_no_place_can_be_opened() -> None:
    places = [f"nosuch://there/{name}" for name in ("m0", "m1", "base", "out")]
    data = {"models": places[:2], "base": places[2], "output": places[3], "method": {"name": "select"}}
    problems = problems_of(data)
    assert [(problem.kind, problem.where) for problem in problems] == [
        ("spec-invalid", uri) for uri in places
    ]


def test_problems_of_all_sources_come_together(family: Family) -> None:
    (family.root / "m0" / "model.safetensors").write_bytes(b"no")
    (family.root / "m1" / "model.safetensors").unlink()
    problems: list[PlaitError] = problems_of(family.spec(base=str(family.root / "nowhere")))
    assert [problem.kind for problem in problems] == [
        "checkpoint-malformed",
        "source-missing",
        "source-missing",
    ]
    assert [
        str(family.root / name) in str(problem) for name, problem in zip(("m0", "m1"), problems, strict=False)
    ]
    assert not family.out.exists()
