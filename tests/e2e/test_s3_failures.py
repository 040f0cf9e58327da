"""Merges on S3 that must end in an error, or go round somebody who interferes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plait.errors import NoSpace
from plait_service.existing import MANIFEST
from plait_workers.storage import local
from tests.support.merging import digests, fails, merge, model_files, prepared_of, working_files
from tests.support.s3_faults import WRITES, Kind
from tests.support.s3_job import OUT, ReferenceJob, make_quick
from tests.support.s3_labels import Label
from tests.support.stores import on_full_disk

HEADER = "bytes=0-65535"
Change = Callable[[ReferenceJob, str], None]


@pytest.fixture(autouse=True)
def _quick(job: ReferenceJob, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make_quick(monkeypatch)
    yield
    job.clear()


def overwrite(job: ReferenceJob, key: str) -> None:
    """By as many bytes, of which one in the last tensor is another."""
    data = bytearray(job.bucket.get(key))
    data[-100] ^= 1
    job.bucket.put(key, bytes(data))


def grow(job: ReferenceJob, key: str) -> None:
    job.bucket.put(key, job.bucket.get(key) + b"\0")


def delete(job: ReferenceJob, key: str) -> None:
    job.bucket.delete(key)


CHANGES: list[Change] = [overwrite, grow, delete]


class TestSources:
    @pytest.fixture(params=["m1", "base"])
    def source(self, job: ReferenceJob, request: pytest.FixtureRequest) -> Iterator[str]:
        """A source's key; the source is put back afterwards."""
        key = f"sources/{request.param}/model.safetensors"
        data = job.bucket.get(key)
        yield key
        job.bucket.put(key, data)
        assert job.bucket.etags("sources/") == job.sources

    @pytest.mark.parametrize("change", CHANGES)
    def test_changed_after_the_plan(self, job: ReferenceJob, source: str, change: Change) -> None:
        with job.by_proxy():
            prepared = prepared_of(job.spec())
            change(job, source)
            with fails("source-changed") as failed:
                merge(prepared)
        assert source in str(failed.value)
        assert not job.visible()

    def test_changed_and_put_back(self, job: ReferenceJob, source: str) -> None:
        """A version is its bytes: the merge is carried on as if nothing had been."""
        data = job.bucket.get(source)
        with job.by_proxy():
            prepared = prepared_of(job.spec())
            overwrite(job, source)
            with fails("source-changed"):
                merge(prepared)
            job.bucket.put(source, data)
            merge(job.spec())
        job.check()

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("moment", [HEADER, "bytes=264-5242976"])
    def test_changed_while_it_is_read(
        self, job: ReferenceJob, source: str, change: Change, moment: str
    ) -> None:
        """Right after its header, or in the middle of its tensors; one thread, so that much is to come."""

        def after(label: Label) -> None:
            if (label.operation, label.key, label.detail) == ("GetObject", source, moment):
                change(job, source)

        with job.by_proxy(after=after) as proxy, fails("source-changed") as failed:
            merge(job.spec(), threads=1)
        assert Label("GetObject", source, moment) in proxy.calls
        assert source in str(failed.value)
        assert not job.visible()


def requests(count: int, kind: Kind) -> Callable[[Label], Kind | None]:
    """All requests after the first ``count`` go wrong in this way."""
    passed = iter(range(count))
    return lambda _label: kind if next(passed, None) is None else None


@pytest.mark.parametrize("tenth", range(10))
def test_credentials_expire_in_the_middle(job: ReferenceJob, tenth: int) -> None:
    """At any request: the error says what to do, and with new credentials the same command ends well."""
    count = tenth * len(job.traffic) // 10 + 3
    with job.by_proxy(requests(count, Kind.EXPIRED)), fails("auth-expired") as failed:
        merge(job.spec())
    assert "enew the credentials" in str(failed.value)
    whole = MANIFEST in job.visible()
    job.run()
    job.check()
    assert not whole or tenth == 9


def test_an_output_that_may_not_be_written(job: ReferenceJob) -> None:
    """It is said before any tensor is read."""
    with (
        job.by_proxy(lambda label: Kind.DENIED if label.operation in WRITES else None) as proxy,
        fails("access-denied") as failed,
    ):
        merge(job.spec())
    assert OUT in str(failed.value)
    assert not job.bucket.etags(f"{OUT}/")
    assert {label.detail for label in proxy.calls if label.operation == "GetObject"} <= {"", HEADER}


def test_a_source_that_may_not_be_read(job: ReferenceJob) -> None:
    with (
        job.by_proxy(lambda label: Kind.DENIED if label.key.startswith("sources/m2") else None) as proxy,
        fails("access-denied") as failed,
    ):
        merge(job.spec())
    assert "sources/m2" in str(failed.value)
    assert not [label for label in proxy.calls if label.operation in WRITES]


def test_wrong_keys(job: ReferenceJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with job.by_proxy():
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-of-this-server")
        with fails("access-denied") as failed:
            merge(job.spec())
    assert "not-the-secret" not in str(failed.value)


@pytest.mark.parametrize(
    "at",
    [
        Label("UploadPart", f"{OUT}/model-00001-of-00002.safetensors", "part=2"),
        Label("UploadPart", f"{OUT}/model-00002-of-00002.safetensors", "part=1"),
        Label("ListParts", f"{OUT}/model-00001-of-00002.safetensors"),
        Label("ListParts", f"{OUT}/model-00002-of-00002.safetensors", count=3),
        Label("CompleteMultipartUpload", f"{OUT}/model-00001-of-00002.safetensors"),
        Label("CompleteMultipartUpload", f"{OUT}/model-00002-of-00002.safetensors"),
        Label("PutObject", f"{OUT}/.plait/journal-000001-*-N.json"),
    ],
    ids=str,
)
def test_a_bystander_aborts_our_uploads(job: ReferenceJob, at: Label) -> None:
    """What was lost is made again."""

    def abort(label: Label) -> Kind | None:
        if label == at:
            for key, number in job.bucket.pending(f"{OUT}/model"):
                job.bucket.abort(key, number)
        return None

    with job.by_proxy(abort) as proxy:
        merge(job.spec())
    assert at in proxy.calls
    job.check()


class TestFromS3ToADisk:
    def spec(self, job: ReferenceJob, folder: Path) -> dict[str, Any]:
        return job.spec(output=str(folder / "out"))

    def test_the_disk_is_full(self, job: ReferenceJob, tmp_path: Path) -> None:
        with job.by_proxy():
            prepared = prepared_of(self.spec(job, tmp_path))
            with fails("no-space"):
                merge(on_full_disk(prepared))
        assert not model_files(tmp_path / "out")

    def test_the_disk_fills_up_in_the_middle(
        self, job: ReferenceJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec, begun = self.spec(job, tmp_path), 0
        begin = local.LocalStore.begin_part

        def begin_part(*args: Any, **kwargs: Any) -> Any:
            nonlocal begun
            begun += 1
            if begun > 1:
                raise NoSpace("writing a part", where=str(tmp_path))
            return begin(*args, **kwargs)

        with job.by_proxy():
            with monkeypatch.context() as full:
                full.setattr(local.LocalStore, "begin_part", begin_part)
                with fails("no-space"):
                    merge(spec, threads=1)
            assert not model_files(tmp_path / "out")
            assert merge(spec).resumed_parts == 1
        assert not working_files(tmp_path / "out")
        shards = {name: data for name, data in job.expected.items() if name.endswith(".safetensors")}
        assert set(shards) < set(digests(tmp_path / "out"))
        assert all((tmp_path / "out" / name).read_bytes() == data for name, data in shards.items())


def test_how_stores_are_spoken_to_is_no_part_of_the_result(job: ReferenceJob) -> None:
    """Another time-out, another number of requests: the same fingerprint, and so the same bytes."""
    with job.by_proxy() as proxy:
        storage = {"endpoint_url": proxy.endpoint, "timeout": 5, "patience": 7, "concurrency": 3}
        merge(job.spec(storage=storage))
    job.check()
