from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from plait.errors import (
    AccessDenied,
    NoSpace,
    PlaitError,
    SourceChanged,
    SourceMissing,
    SpecInvalid,
    StoreError,
    StoreUnavailable,
)
from plait.uri import parse_uri
from plait_workers.storage.base import ObjectStore, RangeReader
from plait_workers.storage.errors import map_os_error, os_errors
from plait_workers.storage.local import LocalStore
from plait_workers.storage.registry import open_store as open_uri
from tests.workers.storage.contract import OpenStore, keys, read
from tests.workers.storage.contract_uploads import KEY, UploadContract, noise

NOBODY = 65534


class TestLocalStore(UploadContract):
    part_size: ClassVar[int] = 4096

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: LocalStore(tmp_path / "store")

    def test_a_torn_line_of_the_log_takes_no_other_with_it(self, store: ObjectStore, tmp_path: Path) -> None:
        """A driver that lost power as it noted part 1 or 10 must not make part 2 look like part 12."""
        for torn in ("1", "10 4096", "1 4096 0123456789abcdef", "\n1 4096 0123456789abcdef"):
            upload = self.begin(store, self.size)
            with open(tmp_path / "store/.plait/uploads" / upload.id / "parts", "a") as log:
                log.write(torn)
            part = self.write(store, upload, 2, noise(self.size))
            assert list(store.list_parts(upload)) == [part]

    def test_a_full_log_is_no_space(self, store: ObjectStore, tmp_path: Path) -> None:
        upload = self.begin(store, self.size)
        log = tmp_path / "store/.plait/uploads" / upload.id / "parts"
        log.unlink()
        log.symlink_to("/dev/full")
        with pytest.raises(NoSpace):
            self.write(store, upload, 1, noise(self.size))

    def test_an_upload_is_preallocated(self, store: ObjectStore) -> None:
        with file_size_limit(1 << 20):
            with pytest.raises(NoSpace) as full:
                store.create_upload(KEY, size=(1 << 20) + 1, metadata={})
            assert full.value.where is not None
            assert full.value.where.endswith(KEY)
            store.create_upload(KEY, size=1 << 20, metadata={})
            with pytest.raises(NoSpace):
                store.put("a", bytes((1 << 20) + 1))
        assert keys(store) == []
        assert sum(info.size for info in store.list(".plait/tmp/")) == 0

    def test_nothing_is_left_of_finished_work(self, store: ObjectStore, tmp_path: Path) -> None:
        upload = self.begin(store, 10)
        self.write(store, upload, 1, noise(10))
        self.complete(store, upload, noise(10))
        store.abort(self.begin(store, 10))
        store.put("a", b"1")
        left = [path for path in (tmp_path / "store/.plait").rglob("*") if path.is_file()]
        assert [path.name.partition("@")[0] for path in left] == [KEY]  # its metadata
        for path in left:
            store.delete(path.relative_to(tmp_path / "store").as_posix())
        assert not (tmp_path / "store/.plait").exists()


def pinned(path: Path, data: bytes, *, bulk: bool) -> RangeReader:
    """A reader of a new file, which is old enough for any later write to change its times."""
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))
    store = LocalStore(path.parent)
    info = store.head(path.name)
    assert info is not None
    return store.open(path.name, info.version, bulk=bulk)


def write_in_place(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"X")


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(10**18, 10**18))
    os.replace(other, path)


def replace_folder_by_file(path: Path) -> None:
    os.rename(path.parent, path.parent.with_name("moved"))
    path.parent.write_bytes(b"")


CHANGES: list[Callable[[Path], None]] = [
    write_in_place,
    replace_by_rename,
    replace_folder_by_file,
    lambda path: os.truncate(path, 4999),
    lambda path: os.truncate(path, 5001),
    lambda path: os.utime(path),
    lambda path: path.unlink(),
]


@pytest.mark.parametrize("bulk", [False, True])
class TestPinning:
    @pytest.mark.parametrize(
        "change", CHANGES, ids=["write", "rename", "no folder", "shorter", "longer", "touch", "unlink"]
    )
    def test_every_change_is_noticed(
        self, tmp_path: Path, change: Callable[[Path], None], bulk: bool
    ) -> None:
        (tmp_path / "m").mkdir()
        path = tmp_path / "m" / "model.safetensors"
        reader = pinned(path, bytes(5000), bulk=bulk)
        assert bytes(reader.read(0, memoryview(bytearray(5000)))) == bytes(5000)
        reader.check()
        change(path)
        with pytest.raises(SourceChanged) as changed:
            reader.check()
        assert str(path) in str(changed.value)
        reader.close()

    def test_a_file_cut_while_it_is_read(self, tmp_path: Path, bulk: bool) -> None:
        """Neither a crash nor wrong bytes: the read or the check after it says that the source changed."""
        path = tmp_path / "model.safetensors"
        size = 1 << 20
        reader = pinned(path, noise(size), bulk=bulk)
        os.truncate(path, 5000)
        with pytest.raises(SourceChanged):  # noqa: PT012 - which of the three says so is the reader's choice
            view = reader.read(size // 2, memoryview(bytearray(1 << 16)))
            assert not np.frombuffer(view, np.uint8).any()
            reader.check()
        del view  # type: ignore[possibly-undefined] # noqa: F821
        reader.close()

    def test_an_old_version_is_not_opened(self, tmp_path: Path, bulk: bool) -> None:
        path = tmp_path / "a"
        pinned(path, b"12345", bulk=bulk).close()
        with pytest.raises(SourceChanged):
            LocalStore(tmp_path).open("a", "1-2-3-4", bulk=bulk)
        with pytest.raises(SourceMissing):
            LocalStore(tmp_path).open("b", "1-2-3-4", bulk=bulk)


class TestLinks:
    def test_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "blobs").mkdir()
        (tmp_path / "snapshot").mkdir()
        (tmp_path / "blobs" / "abc").write_bytes(b"12345")
        (tmp_path / "snapshot" / "model.safetensors").symlink_to("../blobs/abc")
        (tmp_path / "snapshot" / "dangling").symlink_to("../blobs/def")
        store = LocalStore(tmp_path / "snapshot")
        assert keys(store) == ["model.safetensors"]
        assert read(store, "model.safetensors", 1, 3) == b"234"
        assert store.head("dangling") is None

    def test_a_link_that_points_elsewhere_is_a_change(self, tmp_path: Path) -> None:
        (tmp_path / "one").write_bytes(b"12345")
        (tmp_path / "two").write_bytes(b"12345")
        (tmp_path / "link").symlink_to("one")
        store = LocalStore(tmp_path)
        info = store.head("link")
        assert info is not None
        reader = store.open("link", info.version)
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("two")
        with pytest.raises(SourceChanged):
            reader.check()
        reader.close()

    def test_a_circle_is_an_error_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(StoreError):
            LocalStore(tmp_path).head("a")


class TestPlace:
    def test_a_folder_that_is_not_there_is_empty(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path / "no" / "such")
        assert keys(store) == []
        assert store.head("a") is None
        assert store.free_bytes() == pytest.approx(LocalStore(tmp_path).free_bytes(), rel=0.5)
        store.check_writable()
        assert not (tmp_path / "no").exists()
        store.put("a", b"1")
        assert (tmp_path / "no" / "such" / "a").read_bytes() == b"1"

    def test_a_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"")
        store = LocalStore(tmp_path)
        for if_absent in (False, True):
            with pytest.raises(StoreError):
                store.put("a/b", b"1", if_absent=if_absent)
        with pytest.raises(AccessDenied):
            LocalStore(tmp_path / "a").check_writable()

    def test_working_files_are_listed_only_by_name(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        store.put(".plait/claim-1.json", b"{}")
        store.put(".gitattributes", b"")
        assert keys(store) == keys(store, "") == [".gitattributes"]
        assert keys(store, ".plait/claim-") == [".plait/claim-1.json"]
        store.delete(".plait/claim-1.json")
        assert not (tmp_path / ".plait").exists()

    def test_is_opened_by_its_uri(self, tmp_path: Path) -> None:
        assert open_uri(parse_uri(f"file://{tmp_path}")).uri == str(tmp_path)
        with pytest.raises(SpecInvalid):
            open_uri(parse_uri("nosuch://host/path"))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The system refuses to make files larger than this, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Permissions do not bind root: become somebody whom they do."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A folder that others may look into and not write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").write_bytes(b"1")
        (folder / "secret").mkdir(mode=0o700)
        (folder / "secret" / "b").write_bytes(b"1")
        (folder / "secret").chmod(0)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        (folder / "secret").chmod(0o755)


class TestRefusals:
    def test_a_read_only_folder(self, guarded: Path) -> None:
        store = LocalStore(guarded)
        with unprivileged():
            assert keys(store, "a") == ["a"]
            for attempt in (
                store.now,
                lambda: store.put("c", b"1"),
                lambda: store.delete("a"),
                lambda: store.create_upload("c", size=1, metadata={}),
            ):
                with pytest.raises(AccessDenied) as denied:
                    attempt()
                assert str(guarded) in str(denied.value)

    def test_a_folder_that_may_not_be_looked_into(self, guarded: Path) -> None:
        store = LocalStore(guarded)
        with unprivileged():
            for attempt in (
                lambda: list(store.list()),
                lambda: list(store.list("secret/")),
                lambda: store.head("secret/b"),
                lambda: store.get("secret/b", limit=10),
                lambda: store.open("secret/b", "v"),
            ):
                with pytest.raises(AccessDenied):
                    attempt()

    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            (errno.EACCES, AccessDenied),
            (errno.EPERM, AccessDenied),
            (errno.EROFS, AccessDenied),
            (errno.ENOSPC, NoSpace),
            (errno.EDQUOT, NoSpace),
            (errno.EFBIG, NoSpace),
            (errno.ENOENT, SourceMissing),
            (errno.ENOTDIR, SourceMissing),
            (errno.EIO, StoreUnavailable),
            (errno.ESTALE, StoreUnavailable),
        ],
    )
    def test_every_error_has_a_place_in_the_tree(self, number: int, kind: type[PlaitError]) -> None:
        raised = OSError(number, os.strerror(number))
        mapped = map_os_error(raised, "reading", "/models/a")
        assert type(mapped) is kind
        assert "/models/a" in str(mapped)
        assert os.strerror(number) in str(mapped)
        with pytest.raises(kind) as wrapped, os_errors("reading", "/models/a"):
            raise raised
        assert wrapped.value.__cause__ is raised
