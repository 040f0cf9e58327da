"""The short way to S3: the same answers as botocore gives, and botocore wherever it does not lead."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from awscrt.checksums import crc64nvme
from botocore.credentials import Credentials

from plait.errors import AccessDenied, SourceChanged, StoreUnavailable, UploadGone
from plait.spec_storage import StoreOptions
from plait_workers.storage.s3.checksums import to_base64
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.store import S3Store
from tests.support.s3 import Bucket, use
from tests.support.s3_faults import Kind
from tests.support.s3_labels import Label
from tests.support.s3_proxy import S3Proxy

DATA = bytes(range(256)) * 400


class Watched:
    """A store behind a proxy, and the names of the requests that botocore made for it."""

    def __init__(self, bucket: Bucket) -> None:
        self.fault: Kind | None = None
        self.proxy = S3Proxy(bucket.access, lambda _label: self.fault)
        self.ordinary: list[str] = []
        self.bucket = bucket

    def open(self, options: StoreOptions | None = None) -> S3Store:
        self.connection = Connection(options or StoreOptions())
        events = self.connection.client.ordinary.meta.events
        events.register("before-call.s3", lambda model, **_rest: self.ordinary.append(model.name))
        return S3Store(self.bucket.name, "p", self.connection)

    def asked(self) -> list[Label]:
        return self.proxy.calls


@pytest.fixture
def watched(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    made = Watched(bucket)
    use(bucket.access, monkeypatch, made.proxy.endpoint)
    with made.proxy:
        yield made


def read(store: S3Store, key: str, start: int = 0, size: int = len(DATA)) -> bytes:
    info = store.head(key)
    assert info is not None
    return bytes(store.open(key, info.version).read(start, memoryview(bytearray(size))))


def known(watched: Watched, options: StoreOptions | None = None) -> S3Store:
    """A store to whose bucket one request has gone through."""
    watched.bucket.put("p/first", b"1")
    store = watched.open(options)
    assert store.head("first") is not None
    watched.ordinary.clear()
    return store


def write(store: S3Store, key: str, data: bytes) -> None:
    upload = store.create_upload(key, size=len(data), metadata={"a": "b"})
    writer = store.begin_part(upload, 1, offset=0, size=len(data), step=len(data))
    writer.reserve(len(data))[:] = data
    writer.commit()
    part = writer.finish(crc64nvme=crc64nvme(data))
    store.complete(upload, [part], crc64nvme=f"{crc64nvme(data):016x}")


class TestTheSameAnswers:
    @pytest.mark.parametrize("name", ["a", "b c", "é", "100%", "a+b=c&d", "~x", "quote'\"", "in/folder"])
    def test_ranges_and_looks(self, watched: Watched, name: str) -> None:
        store = known(watched)
        watched.bucket.put(f"p/{name}", DATA)
        assert read(store, name) == DATA
        assert read(store, name, 1000, 70_000) == DATA[1000:71_000]
        assert not watched.ordinary

    def test_what_a_look_says(self, watched: Watched) -> None:
        crc = to_base64(f"{crc64nvme(DATA):016x}")
        watched.bucket.client.put_object(
            Bucket=watched.bucket.name, Key="p/a", Body=DATA, Metadata={"one": "1"}, ChecksumCRC64NVME=crc
        )
        ordinary = watched.open().head("a")
        assert watched.ordinary == ["HeadObject"]
        direct = known(watched).head("a")
        assert not watched.ordinary
        assert direct == ordinary
        assert direct is not None
        assert direct.crc64nvme is not None
        assert direct.metadata == {"one": "1"}

    def test_nothing_there(self, watched: Watched) -> None:
        store = known(watched)
        before = store.now()
        assert store.head("missing") is None
        assert not watched.ordinary
        assert abs(store.now() - before) < 60

    def test_parts(self, watched: Watched) -> None:
        store = known(watched)
        write(store, "a", DATA)
        assert watched.bucket.get("p/a") == DATA
        assert "UploadPart" not in watched.ordinary
        assert [label.operation for label in watched.asked()].count("UploadPart") == 1

    def test_the_reader_pays_where_that_is_said(
        self, watched: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = known(watched, StoreOptions(requester_pays=True))
        signed: list[Any] = []
        direct = watched.connection.client.direct
        build = direct._request
        monkeypatch.setattr(direct, "_request", lambda *a: signed.append(build(*a)) or signed[-1])
        store.head("first")
        read(store, "first", 0, 1)
        assert signed
        assert {request.headers["x-amz-request-payer"] for request in signed} == {"requester"}


class TestBotocoreIsAsked:
    def test_before_a_bucket_is_known(self, watched: Watched) -> None:
        watched.bucket.put("p/a", DATA)
        assert read(watched.open(), "a") == DATA
        assert watched.ordinary == ["HeadObject"]

    def test_what_is_refused_and_it_shows_the_way_anew(self, watched: Watched) -> None:
        store = known(watched)
        watched.fault = Kind.DENIED
        with pytest.raises(AccessDenied):
            store.head("first")
        assert watched.ordinary[0] == "HeadObject"
        watched.fault = None
        watched.ordinary.clear()
        for _ in range(3):
            assert store.head("first") is not None
        assert watched.ordinary == ["HeadObject"]

    def test_when_a_part_is_refused_its_body_is_sent_again(self, watched: Watched) -> None:
        store = known(watched, StoreOptions(timeout=2.0))
        upload = store.create_upload("a", size=len(DATA), metadata={})
        store.abort(upload)
        watched.ordinary.clear()
        writer = store.begin_part(upload, 1, offset=0, size=len(DATA), step=len(DATA))
        writer.reserve(len(DATA))[:] = DATA
        writer.commit()
        with pytest.raises(UploadGone):
            writer.finish(crc64nvme=crc64nvme(DATA))
        assert watched.ordinary == ["UploadPart"]  # no second one, after waiting for an answer in vain

    def test_when_a_source_changed(self, watched: Watched) -> None:
        store = known(watched)
        info = store.head("first")
        assert info is not None
        watched.bucket.put("p/first", b"2")
        with pytest.raises(SourceChanged):
            store.open("first", info.version).read(0, memoryview(bytearray(1)))
        assert watched.ordinary == ["GetObject"]

    def test_where_there_is_a_proxy(self, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
        watched.bucket.put("p/a", DATA)
        monkeypatch.setenv("HTTP_PROXY", watched.proxy.endpoint)
        monkeypatch.setenv("NO_PROXY", "")
        store = watched.open()
        for _ in range(2):
            store.head("a")
        assert watched.ordinary == ["HeadObject"] * 2


def test_a_busy_store_is_not_asked_twice(watched: Watched) -> None:
    """It would hide from the throttle that the store asked for less."""
    store = known(watched, StoreOptions(patience=0))
    asked = len(watched.asked())
    watched.fault = Kind.SLOW_DOWN
    with pytest.raises(StoreUnavailable):
        store.head("first")
    assert len(watched.asked()) == asked + 1
    assert watched.connection.admitted == 32
    assert not watched.ordinary


def test_renewed_credentials_sign_the_next_request(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = known(watched)
    signer = watched.connection.client.ordinary._request_signer
    seen = []
    renewed = Credentials("other-key", "other-secret", "other-token")
    monkeypatch.setattr(signer, "_credentials", renewed)
    direct = watched.connection.client.direct
    ask = direct._wires.take

    def look(server: Any) -> Any:
        wire = ask(server)
        request = wire.request

        def note(method: str, target: str, body: Any, headers: dict[str, str]) -> None:
            seen.append(headers)
            request(method, target, body, headers)

        wire.request = note
        return wire

    monkeypatch.setattr(direct._wires, "take", look)
    with caplog.at_level(logging.DEBUG), pytest.raises(AccessDenied):
        store.head("first")
    headers = {name.lower(): value for name, value in seen[0].items()}
    assert "other-key" in headers["authorization"]
    assert headers["x-amz-security-token"] == "other-token"
    assert "other-secret" not in caplog.text


def test_nothing_secret_is_shown(watched: Watched) -> None:
    known(watched)
    secret = watched.bucket.access.environment["AWS_SECRET_ACCESS_KEY"]
    client = watched.connection.client
    assert secret not in repr(client) + repr(client.direct) + repr(client.direct.__dict__)
