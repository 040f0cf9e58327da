"""A worker without Ray: messages that are lost or come twice, folders that it does not see, less memory."""

from __future__ import annotations

import itertools
import resource
import threading
import time
from pathlib import Path

import pytest

from plait import __version__
from plait_service.cluster.messages import Answer, Begin, Orders, Setup, boot_id, pack, unpack
from plait_service.cluster.worker import Worker
from plait_service.prepare import Prepared
from plait_workers.job import Unit
from plait_workers.open_files import MOST
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import Upload
from plait_workers.workspace import Workspace
from tests.support.checkpoints import Family, make_family
from tests.support.limits import open_files_limit
from tests.support.merging import fails, prepared_of

SHAPES = {"a": ("BF16", (200, 257)), "b": ("F32", (20_001,))}


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, SHAPES)


def setup_of(prepared: Prepared, **changes: object) -> Setup:
    fields = {
        "version": __version__,
        "boot": boot_id(),
        "sources": prepared.source_uris,
        "output": prepared.plan.spec.output,
        "storage": prepared.plan.spec.storage,
        "memory": 64 << 20,
        "cpus": 4,
    }
    return Setup(**{**fields, **changes})  # type: ignore[arg-type]


def begun(prepared: Prepared, **setup: object) -> tuple[Worker, tuple[Upload, ...]]:
    uploads = tuple(
        prepared.output.create_upload(shard.key, size=shard.size, metadata={})
        for shard in prepared.plan.job.shards
    )
    return Worker(setup_of(prepared, **setup), prepared.plan.job), uploads


def ask(worker: Worker, units: tuple[Unit, ...], seen: int = 0, number: int = 1) -> Answer:
    return worker.sync(Orders(number=number, units=units, seen=seen, hold=0.05))


def all_results(worker: Worker, units: tuple[Unit, ...]) -> dict[Unit, PartRecord]:
    """Ask until all are there, saying each time that nothing has arrived yet."""
    found: dict[Unit, PartRecord] = {}
    deadline = time.monotonic() + 60
    while len(found) < len(units) and time.monotonic() < deadline:
        for result in ask(worker, units).results:
            assert result.record is not None, result.error
            found[result.unit] = result.record
    return found


class TestMessages:
    def test_an_answer_that_is_lost_is_told_again(self, family: Family) -> None:
        prepared = prepared_of(family.spec(part_size="64KiB"))
        worker, uploads = begun(prepared)
        hello = worker.begin(Begin(number=1, uploads=uploads))
        assert (hello.version, hello.slots) == (__version__, 4)
        assert worker.begin(Begin(number=1, uploads=uploads)) == hello
        units = tuple(prepared.plan.job.units())
        found = all_results(worker, units)
        assert set(found) == set(units)
        again = ask(worker, units)
        assert {result.unit: result.record for result in again.results} == found
        assert not again.running
        assert again.totals.written == sum(record.size for record in found.values())
        last = max(result.number for result in again.results)
        assert ask(worker, (), seen=last).results == ()

    def test_orders_of_another_round_are_told_apart(self, family: Family) -> None:
        prepared = prepared_of(family.spec())
        worker, uploads = begun(prepared)
        units = tuple(prepared.plan.job.units())
        assert ask(worker, units).number == -1
        worker.begin(Begin(number=1, uploads=uploads))
        worker.begin(Begin(number=2, uploads=uploads))
        assert ask(worker, units, number=1).number == -1

    def test_what_is_not_begun_can_be_taken_back(self, family: Family) -> None:
        prepared = prepared_of(family.spec(part_size="64KiB"))
        units = tuple(prepared.plan.job.units())
        go = threading.Event()

        class Slow:
            def __init__(self, **_options: object) -> None:
                self.done: list[Unit] = []

            def workspace(self) -> Workspace:
                return Workspace(step_bytes=1, num_sources=1)

            def run(self, unit: Unit, _workspace: Workspace) -> PartRecord:
                go.wait()
                return PartRecord(unit=unit, upload="", size=1, etag="", crc64nvme=0, sha256="")

        setup = setup_of(prepared, cpus=1)
        worker = Worker(setup, prepared.plan.job, Slow)
        worker.begin(Begin(number=1, uploads=()))
        assert len(ask(worker, units).running) == 1
        ask(worker, units[:1])
        go.set()
        time.sleep(0.3)
        assert [result.unit for result in ask(worker, units[:1]).results] == [units[0]]

    def test_a_job_is_sent_whole(self, family: Family) -> None:
        job = prepared_of(family.spec()).plan.job
        sent = unpack(pack(job))
        assert sent.units() == job.units()
        assert (sent.offset_of == job.offset_of).all()
        assert sent.fingerprint == job.fingerprint


class TestWhatDoesNotFit:
    def test_another_version(self, family: Family) -> None:
        worker, uploads = begun(prepared_of(family.spec()), version="0.0.1")
        with fails("cluster-unsuitable") as failed:
            worker.begin(Begin(number=1, uploads=uploads))
        assert "0.0.1" in str(failed.value)

    @pytest.mark.parametrize("seen", ["no file", "another file"])
    def test_a_source_that_is_not_seen(self, family: Family, seen: str) -> None:
        worker, uploads = begun(prepared_of(family.spec()))
        path = family.root / "m1" / "model.safetensors"
        data = path.read_bytes()
        path.unlink()
        if seen == "another file":
            path.write_bytes(data)
        with fails("cluster-unsuitable") as failed:
            worker.begin(Begin(number=1, uploads=uploads))
        assert str(path) in str(failed.value)
        assert seen in str(failed.value)

    def test_an_output_that_is_not_seen(self, family: Family) -> None:
        worker, uploads = begun(prepared_of(family.spec()))
        for file in (family.out / ".plait" / "uploads").rglob("*"):
            if file.is_file():
                file.unlink()
        with fails("cluster-unsuitable"):
            worker.begin(Begin(number=1, uploads=uploads))

    def test_too_little_memory(self, family: Family) -> None:
        worker, uploads = begun(prepared_of(family.spec()), memory=1000)
        with fails("budget-too-small"):
            worker.begin(Begin(number=1, uploads=uploads))


def test_a_life_after_one_that_had_no_memory_takes_less(family: Family) -> None:
    prepared = prepared_of(family.spec())
    worker, uploads = begun(prepared)
    peaks = [worker.begin(Begin(number=n + 1, uploads=uploads, shrink=n)) for n in range(8)]
    assert [peak.slots for peak in peaks][:3] == [4, 2, 1]
    assert all(later.peak <= earlier.peak for earlier, later in itertools.pairwise(peaks))
    assert peaks[1].peak <= peaks[0].peak // 2
    assert set(all_results_of(worker, prepared)) == set(prepared.plan.job.units())


def all_results_of(worker: Worker, prepared: Prepared) -> dict[Unit, PartRecord]:
    units = tuple(prepared.plan.job.units())
    found: dict[Unit, PartRecord] = {}
    while len(found) < len(units):
        for result in ask(worker, units, number=8).results:
            assert result.record is not None, result.error
            found[result.unit] = result.record
    return found


def test_a_unit_without_memory_says_so(family: Family) -> None:
    class Poor:
        def __init__(self, **_options: object) -> None: ...

        def workspace(self) -> Workspace:
            return Workspace(step_bytes=1, num_sources=1)

        def run(self, _unit: Unit, _workspace: Workspace) -> PartRecord:
            raise MemoryError

    prepared = prepared_of(family.spec())
    worker = Worker(setup_of(prepared), prepared.plan.job, Poor)
    worker.begin(Begin(number=1, uploads=()))
    units = tuple(prepared.plan.job.units())
    (result,) = ask(worker, units).results
    assert result.out_of_memory
    assert result.error is not None
    assert result.error.kind == "internal"


def test_it_may_hold_as_many_files_open_as_the_system_allows(family: Family) -> None:
    with open_files_limit(200):
        begun(prepared_of(family.spec()))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == (MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)) > 200
