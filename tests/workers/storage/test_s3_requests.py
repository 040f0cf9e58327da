"""What the options and a lesser server change in the requests that go out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from plait.errors import StoreUnsuitable, UploadGone
from plait.spec_storage import StoreOptions
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.store import S3Store
from tests.support.s3 import Bucket

Requests = list[tuple[str, dict[str, Any]]]


class Watched:
    """A store whose requests are noted, and may be answered before they go out."""

    def __init__(self, bucket: Bucket, options: StoreOptions, answer: Callable[[str, Any], Any]) -> None:
        self.requests: Requests = []
        connection = Connection(options)
        events = connection.client.ordinary.meta.events

        def note(params: dict[str, Any], model: Any, **_rest: Any) -> None:
            self.requests.append((model.name, params))
            answer(model.name, params)

        events.register("provide-client-params.s3", note)
        self.store = S3Store(bucket.name, "p", connection)

    def of(self, *names: str) -> list[dict[str, Any]]:
        found = [params for name, params in self.requests if name in names]
        assert found
        return found


def nothing(_name: str, _params: Any) -> None:
    """Let it go out as it is."""


@pytest.fixture
def watch(bucket: Bucket) -> Callable[..., Watched]:
    return lambda options=StoreOptions(), answer=nothing: Watched(bucket, options, answer)  # noqa: B008


def write(store: S3Store, key: str, data: bytes) -> None:
    from awscrt.checksums import crc64nvme

    upload = store.create_upload(key, size=len(data), metadata={})
    writer = store.begin_part(upload, 1, offset=0, size=len(data), step=len(data))
    writer.reserve(len(data))[:] = data
    writer.commit()
    part = writer.finish(crc64nvme=crc64nvme(data))
    try:
        store.complete(upload, [part], crc64nvme=f"{crc64nvme(data):016x}")
    finally:
        store.abort(upload)


class _Enough(Exception):
    """What is asked for was seen; it need not go out."""


def test_encryption_and_class_go_with_all_that_is_written(watch: Callable[..., Watched]) -> None:
    def stop(name: str, params: Any) -> None:
        raise _Enough

    options = StoreOptions(kms_key_id="some-key", storage_class="STANDARD_IA")
    watched = watch(options, stop)
    for call in (
        lambda: watched.store.put("a", b"1"),
        lambda: watched.store.create_upload("b", size=1, metadata={}),
    ):
        with pytest.raises(Exception) as seen:
            call()
        assert isinstance(seen.value.__cause__, _Enough)
    for params in watched.of("PutObject", "CreateMultipartUpload"):
        assert params["ServerSideEncryption"] == "aws:kms"
        assert params["SSEKMSKeyId"] == "some-key"
        assert params["StorageClass"] == "STANDARD_IA"


def test_the_reader_pays_where_that_is_said(watch: Callable[..., Watched], bucket: Bucket) -> None:
    bucket.put("p/a", b"12345")
    watched = watch(StoreOptions(requester_pays=True))
    info = watched.store.head("a")
    assert info is not None
    list(watched.store.list())
    watched.store.get("a", limit=5)
    watched.store.open("a", info.version).read(0, memoryview(bytearray(5)))
    for params in watched.of("HeadObject", "GetObject", "ListObjectsV2"):
        assert params["RequestPayer"] == "requester"


def refuse_condition(name: str, params: Any) -> None:
    """As servers do that do not know conditional completion."""
    if name == "CompleteMultipartUpload" and "IfNoneMatch" in params:
        said = {"Code": "NotImplemented", "Message": "A header you provided implies functionality..."}
        answer = {"Error": said, "ResponseMetadata": {"HTTPStatusCode": 501}}
        raise ClientError(answer, name)  # type: ignore[arg-type]


class TestConditions:
    def test_completion_without_them_looks_first(self, watch: Callable[..., Watched], bucket: Bucket) -> None:
        watched = watch(answer=refuse_condition)
        watched.store.probe(".plait/probe")
        write(watched.store, "a", b"ours")
        assert bucket.get("p/a") == b"ours"
        with pytest.raises(UploadGone):
            write(watched.store, "a", b"later")
        assert bucket.get("p/a") == b"ours"
        assert not bucket.pending()
        assert sorted(bucket.etags()) == ["p/a"]

    def test_a_driver_that_joined_finds_out_when_it_completes(
        self, watch: Callable[..., Watched], bucket: Bucket
    ) -> None:
        watched = watch(answer=refuse_condition)
        write(watched.store, "a", b"ours")
        assert bucket.get("p/a") == b"ours"

    def test_with_them_nothing_is_looked_at(self, watch: Callable[..., Watched]) -> None:
        watched = watch()
        watched.store.probe(".plait/probe")
        watched.requests.clear()
        write(watched.store, "a", b"ours")
        assert [params.get("IfNoneMatch") for params in watched.of("CompleteMultipartUpload")] == ["*"]

    @pytest.mark.parametrize(("found", "is_ours"), [(b"ours", True), (b"theirs", False)])
    def test_what_lies_there_tells_whose_a_replacement_is_whose_answer_was_lost(
        self, watch: Callable[..., Watched], bucket: Bucket, found: bytes, is_ours: bool
    ) -> None:
        etag = bucket.put("p/a", b"before")
        tries: list[str] = []

        def lose(name: str, params: Any) -> None:
            if name == "PutObject":
                tries.append(params["IfMatch"])
                if len(tries) == 1:
                    bucket.put("p/a", found)
                    raise EndpointConnectionError(endpoint_url="the store")

        assert watch(answer=lose).store.replace("a", b"ours", version=etag) is is_ours
        assert tries == [etag, etag]
        assert bucket.get("p/a") == found

    def test_a_store_without_conditional_put_is_refused(
        self, watch: Callable[..., Watched], bucket: Bucket
    ) -> None:
        def ignore(name: str, params: Any) -> None:
            params.pop("IfNoneMatch", None)

        watched = watch(answer=ignore)
        with pytest.raises(StoreUnsuitable) as unsuitable:
            watched.store.probe(".plait/probe")
        assert "unsafe_without_conditional_put" in str(unsuitable.value)
        assert not bucket.etags()
        accepted = watch(StoreOptions(unsafe_without_conditional_put=True), ignore)
        accepted.store.probe(".plait/probe")
