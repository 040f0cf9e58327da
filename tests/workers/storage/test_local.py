from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from plait.errors import (
    AccessDenied,
    NoSpace,
    PlaitError,
    SourceMissing,
    SpecInvalid,
    StoreError,
    StoreUnavailable,
)
from plait.uri import parse_uri
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.errors import map_os_error, os_errors
from plait_workers.storage.local import LocalStore
from plait_workers.storage.registry import open_store as open_uri
from tests.support.limits import file_size_limit
from tests.workers.storage.contract import OpenStore, keys
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

    def test_what_a_kill_left_empty_goes(self, store: ObjectStore, tmp_path: Path) -> None:
        (tmp_path / "store" / ".plait" / "uploads" / "killed").mkdir(parents=True)
        store.delete(".plait/none")
        assert not (tmp_path / "store" / ".plait").exists()

    def test_an_upload_that_begins_while_somebody_tidies_up(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its folder is empty for a moment, and goes; so it is made again."""
        make, made = Path.mkdir, 0

        def make_and_lose(path: Path, *arguments: Any, **options: Any) -> None:
            nonlocal made
            make(path, *arguments, **options)
            if path.parent.name == "uploads" and made < 3:
                made += 1
                store.delete(".plait/none")

        monkeypatch.setattr(Path, "mkdir", make_and_lose)
        upload = self.begin(store, 10)
        self.write(store, upload, 1, noise(10))
        self.complete(store, upload, noise(10))
        assert made == 3


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
            assert keys(store) == ["a"]
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
