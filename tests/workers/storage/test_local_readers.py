from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plait.errors import SourceChanged, SourceMissing, StoreError
from plait_workers.storage.base import RangeReader
from plait_workers.storage.local import LocalStore
from tests.workers.storage.contract import keys, read
from tests.workers.storage.contract_uploads import noise


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
    os.utime,
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

        def look() -> None:
            view = reader.read(size // 2, memoryview(bytearray(1 << 16)))
            assert not np.frombuffer(view, np.uint8).any()
            reader.check()

        with pytest.raises(SourceChanged):
            look()
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
