from __future__ import annotations

import pickle
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.job import HEADER, Action, Job, OutShard, OutTensor, Source, SourceFile, Unit
from plait_workers.methods.average import Average
from plait_workers.methods.selection import Select


def shard_of(header: int, sizes: list[int], part_size: int, first: int = 0) -> OutShard:
    bounds = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64) + header
    return OutShard(key="a", header=bytes(header), first=first, bounds=bounds, part_size=part_size)


SIZES = st.lists(st.one_of(st.integers(0, 40), st.just(0), st.integers(0, 3000)), max_size=12)


class TestSegments:
    @given(st.integers(0, 200), SIZES, st.integers(1, 500), st.integers(0, 9))
    def test_tile_the_file_exactly(self, header: int, sizes: list[int], part_size: int, first: int) -> None:
        shard = shard_of(header, sizes, part_size, first)
        assert shard.size == header + sum(sizes)
        begins = {HEADER: 0} | {first + i: header + sum(sizes[:i]) for i in range(len(sizes))}
        covered: dict[int, list[tuple[int, int]]] = defaultdict(list)
        at = 0
        for number in range(1, shard.num_parts + 1):
            start, stop = shard.part_range(number)
            assert start == at
            assert stop - start == part_size or number == shard.num_parts
            for tensor, begin, end in shard.segments(number):
                assert begin < end
                assert begins[tensor] + begin == at  # in order, without a gap
                at += end - begin
                covered[tensor].append((begin, end))
            assert at == stop
        assert at == shard.size
        lengths = {HEADER: header} | {first + i: size for i, size in enumerate(sizes)}
        for tensor, length in lengths.items():
            pieces = covered.pop(tensor, [])
            assert [0, *(end for _, end in pieces)] == [*(begin for begin, _ in pieces), length]
        assert not covered

    def test_of_a_small_file(self) -> None:
        shard = shard_of(10, [4, 0, 6], 8, first=3)
        assert shard.num_parts == 3
        assert shard.segments(1) == [(HEADER, 0, 8)]
        assert shard.segments(2) == [(HEADER, 8, 10), (3, 0, 4), (5, 0, 2)]
        assert shard.segments(3) == [(5, 2, 6)]

    def test_a_file_of_nothing_has_one_part(self) -> None:
        shard = shard_of(0, [], 8)
        assert (shard.num_parts, shard.part_range(1), shard.segments(1)) == (1, (0, 0), [])
        assert shard_of(8, [8], 16).num_parts == 1
        assert shard_of(8, [9], 16).num_parts == 2


def tensor_of(name: str, action: Action, *, uses_base: bool) -> OutTensor:
    kind = DTYPES["F32"]
    return OutTensor(
        name=name, shape=(2,), dtype=kind, working=kind, action=action, uses_base=uses_base, elements=2
    )


@pytest.fixture
def job() -> Job:
    tensors = (
        tensor_of("merged", Action.MERGE, uses_base=True),
        tensor_of("blind", Action.MERGE, uses_base=False),
        tensor_of("identical", Action.IDENTICAL, uses_base=True),
        tensor_of("of the base", Action.BASE, uses_base=True),
        tensor_of("not in the base", Action.IDENTICAL, uses_base=False),
    )
    files = (SourceFile(key="model.safetensors", version="1", size=100),)
    return Job(
        fingerprint="f",
        method=Select(),
        seed=3,
        weights=(1.0, 2.0),
        sources=tuple(Source(uri=uri, files=files) for uri in ("m0", "m1", "base")),
        num_models=2,
        tensors=tensors,
        shards=(shard_of(8, [8, 8, 8], 16), shard_of(8, [8, 8], 100, first=3)),
        dtypes=(DTYPES["F32"], DTYPES["F64"]),
        file_of=np.array([[0, 0, 0, -1, 0], [0, 0, 0, -1, 0], [0, 0, 0, 0, -1]], np.int32),
        offset_of=np.zeros((3, 5), np.int64),
        dtype_of=np.array([[0] * 5, [0] * 5, [1] * 5], np.int8),
        twins={},
    )


class TestJob:
    def test_units_are_all_parts_in_order(self, job: Job) -> None:
        numbers = [(unit.shard, unit.number) for unit in job.units()]
        assert numbers == [(0, 1), (0, 2), (1, 1)]
        assert Unit(shard=0, number=2) in set(job.units())

    def test_sources_that_are_read(self, job: Job) -> None:
        assert [job.sources_of(tensor) for tensor in range(5)] == [[0, 1, 2], [0, 1], [0, 1, 2], [2], [0, 1]]

    def test_what_a_method_is_told(self, job: Job) -> None:
        context = job.context(0)
        assert (context.name, context.seed, context.weights) == ("merged", 3, (1.0, 2.0))
        assert context.inputs == (DTYPES["F32"],) * 2
        assert (context.base, context.working, context.output) == (
            DTYPES["F64"],
            DTYPES["F32"],
            DTYPES["F32"],
        )
        assert job.context(1).base is None

    def test_travels(self, job: Job) -> None:
        again = pickle.loads(pickle.dumps(job))
        assert again.units() == job.units()
        assert again.tensors == job.tensors
        assert again.method == job.method != Average()
        assert np.array_equal(again.file_of, job.file_of)
