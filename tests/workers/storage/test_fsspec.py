"""The store that reads through fsspec: the reading half of the contract, pins, retries, errors."""

from __future__ import annotations

import pickle
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations

from plait.errors import (
    AccessDenied,
    AuthExpired,
    InternalError,
    PlaitError,
    SourceChanged,
    SourceMissing,
    SpecInvalid,
    StoreUnavailable,
)
from plait.uri import Uri, parse_uri
from plait_workers.storage.base import ObjectStore, Upload
from plait_workers.storage.fsspec_errors import map_error
from plait_workers.storage.fsspec_info import checksums_of, modified_of, version_of
from plait_workers.storage.fsspec_reader import CHUNK
from plait_workers.storage.fsspec_store import FsspecStore
from plait_workers.storage.registry import open_store as open_uri
from tests.support.checkpoints import make_family
from tests.support.merging import digests, fails, merge
from tests.workers.storage.contract import OpenStore
from tests.workers.storage.contract_readers import ReaderContract


class Placing(FsspecStore):
    """Objects are placed through fsspec itself, beside the store."""

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, metadata: Mapping[str, str] | None = None
    ) -> bool:
        self._check(key)
        self._writer().pipe_file(f"{self._system.root}/{key}", data)
        return True

    def delete(self, key: str) -> None:
        self._check(key)
        fs, path = self._writer(), f"{self._system.root}/{key}"
        if fs.isfile(path):
            fs.rm_file(path)

    def _writer(self) -> Any:
        return fsspec.core.url_to_fs(self.uri, skip_instance_cache=True)[0]


class ReadingContract(ReaderContract):
    """All but what only a place that is written to is asked."""

    test_head = None  # type: ignore[assignment]
    test_metadata_belongs_to_one_object = None  # type: ignore[assignment]
    test_if_absent = None  # type: ignore[assignment]
    test_six_threads_and_one_winner = None  # type: ignore[assignment]
    test_replace = None  # type: ignore[assignment]
    test_of_six_that_replace_a_version_one_succeeds = None  # type: ignore[assignment]
    test_time_is_the_stores_own = None  # type: ignore[assignment]

    def test_a_head_is_stable(self, store: ObjectStore) -> None:
        assert store.head("a") is None
        store.put("a", b"12345")
        info = store.head("a")
        assert info is not None
        assert (info.key, info.size) == ("a", 5)
        assert store.head("a") == info

    def test_folders(self, store: ObjectStore) -> None:
        assert list(store.folders()) == []
        for key in ("a", "b/x", "b/c/x", "b/d/e/x", "f/x"):
            store.put(key, b"1")
        assert list(store.folders()) == ["b", "f"]
        assert list(store.folders("b/")) == ["c", "d"]
        assert list(store.folders("nothing/")) == []

    def test_a_shallow_listing(self, store: ObjectStore) -> None:
        for key in ("a", "ab", "ac/x", "b/c", "b/d", "b/e/x"):
            store.put(key, b"1")
        assert [info.key for info in store.list(deep=False)] == ["a", "ab"]
        assert [info.key for info in store.list("b/", deep=False)] == ["b/c", "b/d"]
        assert [info.key for info in store.list("b/c", deep=False)] == ["b/c"]

    def test_a_scan(self, store: ObjectStore) -> None:
        data = bytes(range(251)) * 80_000
        assert len(data) > 4 * CHUNK
        store.put("a", data)
        info = store.head("a")
        assert info is not None
        reader = store.open("a", info.version, bulk=True)
        far = 3 * CHUNK + 5
        ranges = [(10, 100), (200, 2 * CHUNK + 300), (2 * CHUNK + 300, 2 * CHUNK + 400), (far, len(data))]
        scan = reader.scan(ranges)
        reads = [
            (12, 3),
            (15, 85),
            (200, 2 * CHUNK + 100),
            (2 * CHUNK + 300, 7),
            (far, 1),
            (len(data) - 9, 9),
        ]
        for offset, size in reads:
            assert bytes(scan.read(offset, memoryview(bytearray(size)))) == data[offset : offset + size]
        scan.close()
        scan = reader.scan([(50, 60)])
        with pytest.raises(InternalError):
            scan.read(40, memoryview(bytearray(5)))
        scan.close()
        reader.check()
        reader.close()


@pytest.fixture
def memory() -> Iterator[str]:
    """A place of its own in fsspec's memory."""
    name = uuid.uuid4().hex
    yield f"memory://{name}"
    fs = fsspec.filesystem("memory")
    if fs.exists(f"/{name}"):
        fs.rm(f"/{name}", recursive=True)


class TestMemory(ReadingContract):
    @pytest.fixture
    def open_store(self, memory: str) -> OpenStore:
        return lambda: Placing(parse_uri(f"{memory}/model"))


class TestGoogle(ReadingContract):
    """Against an emulator of Google's storage, in this process."""

    @pytest.fixture
    def open_store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenStore]:
        core = pytest.importorskip("gcsfs.core", reason="needs plait[gs]")
        server = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
        emulator = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="models")
        emulator.start()
        port = emulator._api._httpd.server_port
        emulator._api._httpd.handle_error = lambda *_: None  # gcsfs hangs up on what it needs no more
        # The plain class: the other one asks over gRPC, which the emulator does not speak, what kind of
        # bucket it has.
        monkeypatch.setitem(_registry, "gs", core.GCSFileSystem)
        endpoint = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}
        monkeypatch.setitem(fsspec.config.conf, "gs", endpoint)
        yield lambda: Placing(parse_uri("gs://models/family/model"))
        emulator.stop()

    def test_what_is_known_of_an_object(self, store: ObjectStore) -> None:
        store.put("a", b"123456789")
        info = store.head("a")
        assert info is not None
        assert info.version.startswith("generation-")
        assert info.checksums["crc32c"] == "e3069283"  # the check value of CRC-32C
        assert info.checksums["md5"] == "25f9e794323b453885f5181f1b624d0b"


@pytest.fixture(scope="module")
def azurite() -> Iterator[str]:
    """The connection string of a running Azurite."""
    pytest.importorskip("adlfs", reason="needs plait[az]")
    command = shutil.which("azurite-blob")
    if command is None:
        pytest.skip("needs Azurite, an emulator of Azure's storage")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    process = subprocess.Popen([command, *options, "--blobPort", str(port)])
    try:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        # Azurite's own account and key, which are public.
        yield (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtl"
            "CDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    finally:
        process.terminate()
        process.wait(30)


class TestAzure(ReadingContract):
    """Against Azurite, where it is installed (``npm install --global azurite``)."""

    @pytest.fixture
    def open_store(self, azurite: str, monkeypatch: pytest.MonkeyPatch) -> OpenStore:
        monkeypatch.setitem(fsspec.config.conf, "az", {"connection_string": azurite})
        container = f"c{uuid.uuid4().hex}"
        fsspec.filesystem("az", skip_instance_cache=True).mkdir(container)
        return lambda: Placing(parse_uri(f"az://{container}/family/model"))


def test_what_is_only_asked_of_outputs_is_refused(memory: str) -> None:
    store = open_uri(parse_uri(memory))
    upload = Upload(key="a", id="1", size=1)
    assert store.is_remote
    assert store.part_limits is None
    assert store.free_bytes() is None
    for attempt in (
        lambda: store.put("a", b""),
        lambda: store.replace("a", b"", version="v"),
        lambda: store.delete("a"),
        lambda: store.probe("a"),
        store.now,
        store.check_writable,
        lambda: store.create_upload("a", size=1, metadata={}),
        lambda: store.part_buffer_bytes(1, 1),
        lambda: store.begin_part(upload, 1, offset=0, size=1, step=1),
        lambda: store.flush(upload),
        lambda: store.list_parts(upload),
        lambda: store.complete(upload, [], crc64nvme=""),
        store.list_uploads,
        lambda: store.abort(upload),
    ):
        with pytest.raises(
            SpecInvalid, match="not written to memory://; write to a local folder or to s3://"
        ):
            attempt()


class Faulty(MemoryFileSystem):
    """Files as in memory; answers as the test says."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    answers: ClassVar[list[Any]] = []
    told: ClassVar[Mapping[str, Any]] = {}
    calls = 0

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        Faulty.calls += 1
        data = super().cat_file(path, start=start, end=end, **options)
        answer = Faulty.answers.pop(0) if Faulty.answers else None
        if isinstance(answer, Exception):
            raise answer
        return data if answer is None else answer(data)

    def info(self, path: str, **options: Any) -> Any:
        found = super().info(path, **options)
        return found | self.told


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FsspecStore:
    monkeypatch.setitem(_registry, "faulty", Faulty)
    for name, value in (("store", {}), ("pseudo_dirs", [""]), ("answers", []), ("calls", 0), ("told", {})):
        monkeypatch.setattr(Faulty, name, value)
    store = Placing(parse_uri("faulty://m"))
    store.put("a", b"0123456789")
    return store


def _read(store: FsspecStore) -> bytes:
    info = store.head("a")
    assert info is not None
    return bytes(store.open("a", info.version).read(2, memoryview(bytearray(5))))


def test_a_short_answer_is_asked_again(faulty: FsspecStore) -> None:
    Faulty.answers = [lambda data: data[:-1], lambda _: b"", TimeoutError(), OSError(104, "reset")]
    assert _read(faulty) == b"23456"
    assert Faulty.calls == 5


def test_short_answers_end(faulty: FsspecStore) -> None:
    Faulty.answers = [lambda data: data[:-1]] * 5
    with pytest.raises(StoreUnavailable, match="expected 5 bytes, found 4"):
        _read(faulty)
    assert Faulty.answers == []


def test_a_server_without_ranges_is_not_asked_again(faulty: FsspecStore) -> None:
    Faulty.answers = [lambda _: b"0123456789"]
    with pytest.raises(SpecInvalid, match="ranges"):
        _read(faulty)
    assert Faulty.calls == 1


def test_a_get_is_of_one_version(faulty: FsspecStore) -> None:
    Faulty.answers = [lambda data: data + b"!", lambda _: b"0123"]  # it grew; it shrank
    assert faulty.get("a", limit=10) == b"0123456789"


def test_a_file_that_cannot_be_pinned_is_listed_and_not_opened(
    faulty: FsspecStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "told", {"created": None})
    monkeypatch.setattr(Faulty, "ls", lambda fs, path, **_: [fs.info(f"{path}/a")])
    [info] = faulty.list(deep=False)
    assert info.version == ""
    with pytest.raises(SpecInvalid, match="change of this file"):
        faulty.open("a", info.version)


class _Answer:
    def __init__(self, status: int) -> None:
        self.status_code = status


def _with(error: Exception, **fields: Any) -> Exception:
    for name, value in fields.items():
        setattr(error, name, value)
    return error


SECRET = "https://host/a?sig=SECRET"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(SECRET), SourceMissing),
        (IsADirectoryError(SECRET), SourceMissing),
        (PermissionError(SECRET), AccessDenied),
        (OSError(f"Forbidden: {SECRET}"), AccessDenied),
        (OSError(110, "timed out", SECRET), StoreUnavailable),
        (TimeoutError(SECRET), StoreUnavailable),
        (_with(Exception(SECRET), status=404), SourceMissing),
        (_with(Exception(SECRET), code="403"), AccessDenied),
        (_with(Exception(f"Invalid Credentials {SECRET}"), code=401), AuthExpired),
        (_with(Exception(f"Token expired {SECRET}"), status_code=403), AuthExpired),
        (_with(Exception(SECRET), response=_Answer(503)), StoreUnavailable),
        (_with(Exception(SECRET), response=_Answer(416)), SourceChanged),
        (KeyError(SECRET), StoreUnavailable),
    ],
)
def test_errors_of_libraries(error: Exception, kind: type[PlaitError]) -> None:
    mapped = map_error(error, "reading", "gs://b/a")
    assert type(mapped) is kind
    assert "SECRET" not in str(mapped)
    assert "gs://b/a" in str(mapped)


def test_schemes_without_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecInvalid, match="no store serves"):
        open_uri(parse_uri("nothing://b/a"))
    for scheme in ("gs", "az", "hf"):
        monkeypatch.delitem(_registry, scheme, raising=False)
        monkeypatch.setitem(
            known_implementations, scheme, {**known_implementations[scheme], "class": "no_such_package.Store"}
        )
        with pytest.raises(SpecInvalid, match=rf"pip install 'plait\[{scheme}\]'"):
            open_uri(Uri(scheme, "b", "a"))


def test_versions() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    google = {"size": 3, "generation": "7", "etag": "x", "mtime": now}
    assert version_of(google) == version_of(google | {"etag": "y", "mtime": None}) == "generation-7-3"
    assert version_of({"size": 3, "etag": '"x"'}) == "etag-x-3"
    weak = {"size": 3, "ETag": 'W/"x"', "Last-Modified": "Fri, 02 Jan 2026 00:00:00 GMT"}
    assert version_of(weak) != version_of(weak | {"Last-Modified": "Fri, 02 Jan 2026 00:00:01 GMT"})
    assert version_of({"size": 3, "mtime": now}) == version_of({"size": 3, "mtime": now.timestamp()})
    assert version_of({"size": 3}) == ""
    assert version_of({"size": 3, "blob_id": "b"}, "c") == "b@c"
    assert modified_of(weak) == modified_of({"mtime": now}) == modified_of({"last_modified": now.isoformat()})
    assert modified_of({"size": 3}) == 0
    assert checksums_of({"crc32c": "4waSgw==", "lfs": {"sha256": "ab"}}) == {
        "crc32c": "e3069283",
        "sha256": "ab",
    }
    assert checksums_of({"crc32c": "no base 64"}) == {}


def test_nothing_is_opened_before_it_is_used() -> None:
    pytest.importorskip("huggingface_hub")
    store = open_uri(parse_uri("hf://owner/name/folder"))
    assert store.uri == "hf://owner/name/folder"
    assert pickle.loads(pickle.dumps(store)).uri == store.uri


def test_models_in_memory_give_the_same_bytes(tmp_path: Path, memory: str) -> None:
    family = make_family(tmp_path, {"a": ("BF16", (64, 33)), "b": ("F32", (17,))})
    fs = fsspec.filesystem("memory")
    spec = family.spec()
    merge(spec)
    for folder in (path for path in family.root.iterdir() if path != family.out):
        for file in folder.iterdir():
            fs.pipe_file(f"{memory.removeprefix('memory:/')}/{folder.name}/{file.name}", file.read_bytes())
    remote = _moved(spec, str(family.root), memory) | {"output": str(tmp_path / "again")}
    merge(remote)
    names = {"plait.json", "README.md"}  # these name the sources
    expected, found = digests(family.out), digests(tmp_path / "again")
    assert {k: v for k, v in found.items() if k not in names} == {
        k: v for k, v in expected.items() if k not in names
    }
    with fails("spec-invalid"):
        merge(remote | {"output": f"{memory}/out"})


def _moved(value: Any, root: str, place: str) -> Any:
    if isinstance(value, str):
        return value.replace(root, place)
    if isinstance(value, list):
        return [_moved(one, root, place) for one in value]
    if isinstance(value, dict):
        return {name: _moved(one, root, place) for name, one in value.items()}
    return value
