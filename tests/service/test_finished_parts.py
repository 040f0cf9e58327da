"""The table of finished parts gives back what it was told, and takes its memory at the beginning."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import InternalError
from plait_service.finished_parts import FinishedParts
from plait_workers.job import Job, Unit
from plait_workers.part_pass import PartRecord
from tests.support.checked_stores import remote_like
from tests.support.checkpoints import make_family

SHAPES = {f"layers.{index}.weight": ("BF16", (64, 257)) for index in range(9)}
COUNTS = st.integers(0, 2**62)
RANGES = st.lists(
    st.tuples(
        *(st.integers(0, 5), st.integers(0, 300), st.integers(0, 2**62), st.integers(0, 2**62)),
        st.integers(0, 2**64 - 1),
    ),
    max_size=20,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    family = make_family(tmp_path_factory.mktemp("family"), SHAPES, models=2)
    spec = family.spec(part_size=65_536, shard_size=100_000)
    return remote_like(spec).plan.job


@st.composite
def records(draw: st.DrawFn, job: Job) -> PartRecord:
    counters = st.dictionaries(
        st.integers(0, len(job.tensors) - 1), st.lists(COUNTS, min_size=6, max_size=6), max_size=4
    )
    return PartRecord(
        unit=draw(st.sampled_from(job.units())),
        upload="u",
        size=draw(st.integers(0, 2**40)),
        etag=draw(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=100)),
        crc64nvme=draw(st.integers(0, 2**64 - 1)),
        sha256=draw(st.binary(min_size=32, max_size=32)).hex(),
        counters={tensor: [count % 2**40 for count in counts] for tensor, counts in draw(counters).items()},
        reads=draw(RANGES),
    )


@given(data=st.data())
def test_it_is_what_a_dictionary_of_records_would_be(job: Job, data: st.DataObject) -> None:
    table, model = FinishedParts(job), dict[Unit, PartRecord]()
    for record in data.draw(st.lists(records(job), max_size=30)):
        table.add(record)
        model[record.unit] = record
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(job.units()))
            table.discard(gone)
            model.pop(gone, None)
    assert len(table) == len(model)
    assert table.size == sum(record.size for record in model.values())
    assert [unit for unit in job.units() if unit in table] == [unit for unit in job.units() if unit in model]
    total: dict[int, list[int]] = {}
    for record in model.values():
        for tensor, counts in record.counters.items():
            total[tensor] = [a + b for a, b in zip(total.get(tensor, [0] * 6), counts, strict=True)]
    assert table.counters() == total
    rows, reads = table.reads()
    found = [(table.unit(row), *read) for row, read in zip(rows.tolist(), reads.tolist(), strict=True)]
    assert Counter(found) == Counter(
        (record.unit, *read) for record in model.values() for read in record.reads
    )
    assert [read[:4] for read in reads.tolist()] == sorted(read[:4] for read in reads.tolist())


@given(data=st.data())
def test_a_shard_lists_its_parts_in_order(job: Job, data: st.DataObject) -> None:
    table, number = FinishedParts(job), data.draw(st.integers(0, len(job.shards) - 1))
    units = [unit for unit in job.units() if unit.shard == number]
    for unit in data.draw(st.permutations(units)):
        with pytest.raises(InternalError):
            table.of_shard(number)
        record = data.draw(records(job))
        table.add(
            PartRecord(
                unit=unit,
                upload="u",
                size=record.size,
                etag=f"{unit.number}{record.etag}",
                crc64nvme=record.crc64nvme,
                sha256=record.sha256,
            )
        )
        last = record
    parts = table.of_shard(number)
    assert [part.number for part in parts] == [unit.number for unit in units]
    assert all(part.etag.startswith(str(part.number)) for part in parts)
    assert any(
        (part.size, part.crc64nvme, part.sha256) == (last.size, last.crc64nvme, last.sha256) for part in parts
    )


def test_its_memory_is_the_same_from_the_first_part_to_the_last(job: Job) -> None:
    """Each part as full as it can be: all of its tensors are counted, all ranges apart from each other."""
    table = FinishedParts(job)
    begun = table.nbytes
    for unit in job.units():
        tensors = [tensor for tensor, _, _ in job.shards[unit.shard].segments(unit.number) if tensor >= 0]
        reads = [(source, 0, 10 * tensor, 10 * tensor + 9, 1) for tensor in tensors for source in range(3)]
        table.add(
            PartRecord(
                unit=unit,
                upload="u",
                size=1,
                etag='"0123456789abcdef0123456789abcdef"',
                crc64nvme=1,
                sha256="00" * 32,
                counters={tensor: [1] * 6 for tensor in tensors},
                reads=reads,
            )
        )
    assert len(table) == len(job.units())
    assert table.nbytes == begun
    table.clear()
    assert len(table) == 0
