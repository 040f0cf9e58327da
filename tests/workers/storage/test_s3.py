"""The S3 store on a real server: the contract, and what is S3's own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import ClassVar

import pytest

from plait.errors import AccessDenied, PlaitError, SourceChanged, SourceMissing, StoreRefused
from plait.spec_storage import StorageSpec, StoreOptions
from plait.uri import parse_uri
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.registry import Stores
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.reader import Body
from plait_workers.storage.s3.store import S3Store
from tests.support.s3 import Bucket
from tests.workers.storage.contract import OpenStore, keys, read
from tests.workers.storage.contract_uploads import KEY, UploadContract, crc_of, noise

MB = 1 << 20


class TestS3Store(UploadContract):
    part_size: ClassVar[int] = 5 * MB
    winners: ClassVar[range] = range(1, 5)  # completing again, while the first is under way, is no error

    @pytest.fixture
    def open_store(self, bucket: Bucket) -> OpenStore:
        stores = Stores()  # a client takes a third of a second to make; that is botocore's, and not tested
        return lambda: stores.open(parse_uri(bucket.uri("some/prefix")))


class TestPlaces:
    def test_the_whole_bucket_is_a_store_too(self, bucket: Bucket) -> None:
        bucket.put("a", b"1")
        bucket.put("folder/b", b"2")
        store = Stores().open(parse_uri(bucket.uri()))
        assert keys(store) == ["a", "folder/b"]
        assert [info.key for info in store.list(deep=False)] == ["a"]
        assert list(store.folders()) == ["folder"]
        assert store.get("folder/b", limit=1) == b"2"

    def test_a_prefix_is_a_folder_and_no_start_of_a_name(self, bucket: Bucket) -> None:
        bucket.put("run-1/a", b"1")
        bucket.put("run-10/b", b"2")
        assert keys(Stores().open(parse_uri(bucket.uri("run-1")))) == ["a"]

    @pytest.mark.parametrize("name", ["a b", "é", "100%", "a+b=c&d", "quote'\"", "ключ"])
    def test_any_name_will_do(self, bucket: Bucket, name: str) -> None:
        store = Stores().open(parse_uri(bucket.uri("some")))
        assert store.put(name, b"12345")
        assert keys(store) == [name]
        assert read(store, name, 1, 3) == b"234"
        store.delete(name)
        assert not keys(store)

    def test_more_than_a_page_is_listed(self, bucket: Bucket) -> None:
        store = Stores().open(parse_uri(bucket.uri("many")))
        for number in range(1003):
            bucket.put(f"many/{number:04d}", b"")
        assert keys(store) == [f"{number:04d}" for number in range(1003)]

    def test_no_such_bucket(self, bucket: Bucket) -> None:
        store = Stores().open(parse_uri("s3://there-is-none-of-this-name/a"))
        for call in (lambda: list(store.list()), lambda: store.get("a", limit=1)):
            with pytest.raises(SourceMissing) as missing:
                call()
            assert "there-is-none-of-this-name" in str(missing.value)

    def test_a_pickled_store_is_the_same_place(self, bucket: Bucket) -> None:
        bucket.put("a/b", b"1")
        store = Stores(StorageSpec(concurrency=3)).open(parse_uri(bucket.uri("a")))
        other: ObjectStore = pickle.loads(pickle.dumps(store))
        assert (other.uri, keys(other)) == (store.uri, ["b"])

    def test_options_of_a_bucket_go_before_those_of_all(self, bucket: Bucket) -> None:
        nowhere = {"endpoint_url": "http://127.0.0.1:9", "patience": 0.0}
        own = {bucket.name: StoreOptions(endpoint_url=bucket.access.endpoint)}
        stores = Stores(StorageSpec(buckets=own, **nowhere))
        assert not keys(stores.open(parse_uri(bucket.uri())))
        with pytest.raises(PlaitError) as failed:
            keys(stores.open(parse_uri("s3://other/a")))
        assert failed.value.kind == "store-unavailable"


class TestCredentials:
    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.head("a"),
            lambda store: list(store.list()),
            lambda store: store.get("a", limit=10),
            lambda store: store.put("a", b""),
            lambda store: store.check_writable(),
        ],
        ids=["head", "list", "get", "put", "check"],
    )
    def test_wrong_keys(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, call: Callable[[ObjectStore], object]
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        with pytest.raises(AccessDenied) as denied:
            call(Stores().open(parse_uri(bucket.uri("p"))))
        assert "not-the-secret" not in str(denied.value)
        assert bucket.uri("p") in str(denied.value)

    def test_none_at_all(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(AccessDenied) as denied:
            Stores().open(parse_uri(bucket.uri("p"))).head("a")
        assert "AWS_PROFILE" in str(denied.value)

    def test_a_repr_shows_no_secret(self, bucket: Bucket) -> None:
        store = Stores().open(parse_uri(bucket.uri("p")))
        store.head("a")
        assert bucket.access.secret_key not in repr(store) + str(vars(store))


class TestPins:
    def test_each_range_is_of_the_pinned_version(self, bucket: Bucket) -> None:
        bucket.put("p/a", noise(3 * MB))
        store = Stores().open(parse_uri(bucket.uri("p")))
        info = store.head("a")
        assert info is not None
        reader = store.open("a", info.version, bulk=True)
        scan = reader.scan([(0, MB), (2 * MB, 3 * MB)])
        scratch = memoryview(bytearray(MB))
        assert scan.read(0, scratch) == noise(3 * MB)[:MB]
        bucket.put("p/a", noise(3 * MB, seed=1))
        with pytest.raises(SourceChanged):
            reader.scan([(2 * MB, 3 * MB)]).read(2 * MB, scratch)
        bucket.delete("p/a")
        with pytest.raises(SourceChanged):
            reader.read(0, scratch)

    def test_versions_outlive_an_overwrite(self, bucket: Bucket) -> None:
        bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
        bucket.put("p/a", b"first")
        store = Stores(StorageSpec(pin="version")).open(parse_uri(bucket.uri("p")))
        info = store.head("a")
        assert info is not None
        bucket.put("p/a", b"other")
        assert bytes(store.open("a", info.pin).read(0, memoryview(bytearray(5)))) == b"first"
        with pytest.raises(SourceChanged):
            store.open("a", info.version).read(0, memoryview(bytearray(5)))

    @pytest.mark.parametrize("sizes", [(1, 1), (70_000, 1), (3, 70_000), (MB, MB - 200)])
    def test_scans_skip_small_gaps_and_begin_ranges_anew(
        self, bucket: Bucket, sizes: tuple[int, int]
    ) -> None:
        data = noise(4 * MB)
        bucket.put("p/a", data)
        store = Stores().open(parse_uri(bucket.uri("p")))
        info = store.head("a")
        assert info is not None
        scan = store.open("a", info.version).scan([(10, 2 * MB), (2 * MB, 2 * MB), (3 * MB, 4 * MB)])
        for offset, size in ((10, sizes[0]), (10 + sizes[0] + 100, sizes[1]), (3 * MB, sizes[0])):
            assert scan.read(offset, memoryview(bytearray(size))) == data[offset : offset + size]
        scan.close()


@pytest.mark.parametrize("read_before", [0, 1, 1000])
def test_a_body_that_breaks_is_taken_up_there(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, read_before: int
) -> None:
    """Not at the next range, which was asked for already."""
    data = noise(3 * MB)
    bucket.put("p/a", data)
    store = Stores().open(parse_uri(bucket.uri("p")))
    info = store.head("a")
    assert info is not None
    read_into, calls = Body.read_into, iter(range(100))

    def breaking(body: Body, target: memoryview) -> int:
        match next(calls):
            case 0 if read_before:
                return read_into(body, target[:read_before])
            case 0 | 1:
                raise ConnectionResetError
        return read_into(body, target)

    monkeypatch.setattr(Body, "read_into", breaking)
    scan = store.open("a", info.version).scan([(0, MB), (2 * MB, 3 * MB)])
    for start in (0, 2 * MB):
        assert scan.read(start, memoryview(bytearray(MB))) == data[start : start + MB]
    scan.close()


class TestUploads:
    @pytest.fixture
    def store(self, bucket: Bucket) -> ObjectStore:
        return Stores().open(parse_uri(bucket.uri("out")))

    def write(self, store: ObjectStore, upload: object, number: int, data: bytes) -> None:
        writer = store.begin_part(upload, number, offset=0, size=len(data), step=len(data))  # type: ignore[arg-type]
        writer.reserve(len(data))[:] = data
        writer.commit()
        writer.finish(crc64nvme=int(crc_of(data), 16))

    def test_a_wrong_checksum_is_refused(self, store: ObjectStore) -> None:
        upload = store.create_upload(KEY, size=10, metadata={})
        writer = store.begin_part(upload, 1, offset=0, size=10, step=10)
        writer.reserve(10)[:] = b"0123456789"
        writer.commit()
        with pytest.raises(PlaitError):
            writer.finish(crc64nvme=1)
        self.write(store, upload, 1, b"0123456789")
        with pytest.raises(PlaitError):
            store.complete(upload, store.list_parts(upload), crc64nvme=f"{1:016x}")
        assert store.head(KEY) is None

    def test_a_small_part_in_the_middle_is_refused(self, store: ObjectStore) -> None:
        upload = store.create_upload(KEY, size=20, metadata={})
        for number in (1, 2):
            self.write(store, upload, number, b"0123456789")
        with pytest.raises(StoreRefused):
            store.complete(upload, store.list_parts(upload), crc64nvme=crc_of(b"0123456789" * 2))

    def test_more_than_a_page_of_parts(self, store: ObjectStore) -> None:
        upload = store.create_upload(KEY, size=1002, metadata={})
        for number in range(1, 1003):
            self.write(store, upload, number, b"x")
        assert [part.number for part in store.list_parts(upload)] == list(range(1, 1003))
        store.abort(upload)

    def test_uploads_are_listed_and_aborted(self, store: ObjectStore, bucket: Bucket) -> None:
        other = bucket.begin_upload("elsewhere/a")
        upload = store.create_upload(KEY, size=10, metadata={})
        assert [(found.key, found.id) for found in store.list_uploads()] == [(KEY, upload.id)]
        store.abort(upload)
        store.abort(upload)
        assert bucket.pending() == {("elsewhere/a", other)}

    def test_looking_whether_one_may_write_leaves_nothing(self, store: ObjectStore, bucket: Bucket) -> None:
        store.check_writable()
        store.probe(".plait/probe")
        assert not bucket.etags()
        assert not bucket.pending()


def test_buffers_are_used_again(bucket: Bucket) -> None:
    """Also by smaller parts, as each file's last one is: memory does not grow with the number of files."""
    connection = Connection(StoreOptions())
    store = S3Store(bucket.name, "p", connection)
    upload = store.create_upload("a", size=30, metadata={})
    buffers = []
    for number, size in enumerate((10, 7, 3, 10, 12, 11), start=1):
        data = noise(size)
        writer = store.begin_part(upload, number, offset=0, size=size, step=size)
        place = writer.reserve(size)
        buffers.append(place.obj)
        place[:] = data
        place.release()
        writer.commit()
        assert writer.finish(crc64nvme=int(crc_of(data), 16)).size == size
    assert [id(buffer) for buffer in buffers[:4]] == [id(buffers[0])] * 4
    assert id(buffers[4]) == id(buffers[5])
    assert len(connection.take_buffer(1)) == 12
    assert len(connection.take_buffer(1)) == 1
    store.abort(upload)
