"""Memory-mapped reading: the same bytes, and a cut file is an error and not the end of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plait.errors import SourceChanged
from plait_workers.storage.local import LocalStore
from plait_workers.storage.local_io import LocalReader
from plait_workers.storage.mapped import MappedReader, can_map

SIZE = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    if not can_map(path):
        pytest.skip("the temporary folder lies on no file system that is mapped")
    return path


def _open(path: Path) -> MappedReader:
    store = LocalStore(path.parent)
    info = store.head(path.name)
    assert info is not None
    reader = store.open(path.name, info.version, bulk=True)
    assert isinstance(reader, MappedReader)
    return reader


def test_a_view_is_the_files_bytes_and_not_the_scratch(source: Path) -> None:
    reader, scratch = _open(source), memoryview(bytearray(5000))
    data = reader.read(12345, scratch)
    assert bytes(data) == source.read_bytes()[12345:17345]
    assert bytes(scratch) == bytes(5000)
    del data
    reader.check()
    assert bytes(reader.read(0, memoryview(bytearray(SIZE)))) == source.read_bytes()
    reader.close()


def test_an_empty_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    store = LocalStore(tmp_path)
    info = store.head("empty")
    assert info is not None
    reader = store.open("empty", info.version, bulk=True)
    assert bytes(reader.read(0, memoryview(b""))) == b""
    reader.close()


def test_a_file_that_is_cut_while_mapped_reads_as_zeros_and_is_then_an_error(source: Path) -> None:
    reader = _open(source)
    data = reader.read(0, memoryview(bytearray(SIZE)))
    os.truncate(source, 5000)
    assert bytes(data[SIZE - 4096 :]) == bytes(4096)
    with pytest.raises(SourceChanged, match="source"):
        reader.check()
    data.release()
    reader.close()


def test_a_disk_error_is_found_though_the_files_status_is_the_same(source: Path) -> None:
    """The count of missing pages alone is enough: here the status is put back after the cut."""
    reader = _open(source)
    data = reader.read(0, memoryview(bytearray(SIZE)))
    before = source.read_bytes()
    os.truncate(source, 0)
    assert bytes(data[-1:]) == b"\0"
    data.release()
    source.write_bytes(before)
    info = LocalStore(source.parent).head("source")
    assert info is not None
    reader._version = info.version
    with pytest.raises(SourceChanged, match="changed"):
        reader.check()
    reader.close()


def test_views_outlive_a_close(source: Path) -> None:
    reader = _open(source)
    data = reader.read(100, memoryview(bytearray(200)))
    reader.close()
    assert bytes(data) == source.read_bytes()[100:300]


def test_a_bus_error_elsewhere_still_ends_the_process(source: Path) -> None:
    script = f"""
import faulthandler, mmap, os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from plait_workers.storage.local import LocalStore
path = Path({str(source)!r})
store = LocalStore(path.parent)
reader = store.open(path.name, store.head(path.name).version, bulk=True)
with open(path, "rb") as file:
    other = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
os.truncate(path, 0)
print("alive", flush=True)
other[5000]
print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n"
    assert done.returncode == -signal.SIGBUS


def test_without_bulk_a_file_is_read_into_the_scratch(source: Path) -> None:
    store = LocalStore(source.parent)
    info = store.head("source")
    assert info is not None
    reader = store.open("source", info.version)
    assert type(reader) is LocalReader
    scratch = memoryview(bytearray(100))
    reader.read(7, scratch)
    assert bytes(scratch) == source.read_bytes()[7:107]
    reader.close()
