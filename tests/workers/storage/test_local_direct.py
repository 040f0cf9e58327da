"""Parts written past the page cache: the contract's promises, and that it is so."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from awscrt.checksums import crc64nvme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plait.errors import NoSpace
from plait_workers.storage import local_direct
from plait_workers.storage.base import ObjectStore, PartWriter, Upload
from plait_workers.storage.local import LocalStore
from plait_workers.storage.local_blocks import BLOCK, BlockFile, open_blocks
from plait_workers.storage.local_direct import MIN_DIRECT, DirectPartWriter, Lane, buffer_bytes
from plait_workers.storage.local_parts import CachedPartWriter, PartPlace, UploadFile
from tests.support.limits import file_size_limit
from tests.workers.storage.contract import OpenStore
from tests.workers.storage.contract_uploads import KEY, UploadContract, noise

STEP = 3 * BLOCK


@pytest.fixture
def blocks(tmp_path: Path) -> BlockFile:
    (tmp_path / "data").touch()
    (tmp_path / "parts").touch()
    found = open_blocks(tmp_path, tmp_path / "data", UploadFile(tmp_path / "data"))
    if found is None:
        pytest.skip("the temporary folder lies on no file system that is written past its page cache")
    return found


def writer_of(blocks: BlockFile, folder: Path, *, offset: int, size: int) -> DirectPartWriter:
    place = PartPlace(
        file=UploadFile(folder / "data"),
        log=folder / "parts",
        where="here",
        number=1,
        offset=offset,
        size=size,
        step=STEP,
    )
    return DirectPartWriter(place, blocks, [])


def fill(writer: PartWriter, data: bytes, cuts: list[int]) -> None:
    """In steps as long as ``cuts`` say, again and again."""
    at, turn = 0, 0
    while at < len(data):
        piece = data[at : at + cuts[turn % len(cuts)]]
        writer.reserve(len(piece))[:] = piece
        writer.commit()
        at, turn = at + len(piece), turn + 1
    writer.finish(crc64nvme=crc64nvme(data))


def open_below(folder: Path) -> int:
    """Descriptors of this process on files there."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that lists
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{folder}/")
    return count


def is_cached(path: Path, offset: int) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(BLOCK)], offset, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("blocks")
class TestDirectParts(UploadContract):
    part_size: ClassVar[int] = MIN_DIRECT

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: LocalStore(tmp_path / "store")

    def test_what_is_written_is_not_in_the_page_cache(self, store: ObjectStore, tmp_path: Path) -> None:
        data = noise(self.size)
        upload = self.begin(store, self.size)
        for number in (1, 2, 3, 4):
            self.write(store, upload, number, data, step=100_000)
        self.complete(store, upload, data)
        path = tmp_path / "store" / KEY
        assert [is_cached(path, number * self.part_size) for number in range(3)] == [False] * 3
        assert path.read_bytes() == data
        assert is_cached(path, 0)

    @pytest.mark.parametrize(
        ("offset", "size", "kind"),
        [
            (0, MIN_DIRECT, DirectPartWriter),
            (MIN_DIRECT, MIN_DIRECT + 1, DirectPartWriter),
            (0, MIN_DIRECT - 1, CachedPartWriter),
            (100, MIN_DIRECT, CachedPartWriter),
        ],
    )
    def test_small_parts_and_odd_places_go_through_it(
        self, store: ObjectStore, offset: int, size: int, kind: type
    ) -> None:
        upload = self.begin(store, 4 * MIN_DIRECT)
        assert isinstance(store.begin_part(upload, 1, offset=offset, size=size, step=STEP), kind)

    def test_a_writer_holds_what_the_budget_was_told(self, store: ObjectStore) -> None:
        for step in (64 << 10, 99_999, 1 << 20):
            lane = Lane(step)
            assert sum(map(len, lane.buffers)) == buffer_bytes(step)
            # A lane is kept while a file's last part, a small one, has a step of its own.
            assert store.part_buffer_bytes(1 << 30, step) == buffer_bytes(step) + step
        assert store.part_buffer_bytes(MIN_DIRECT, 64 << 10) < MIN_DIRECT
        assert store.part_buffer_bytes(MIN_DIRECT - 1, 1000) == 1000

    def test_a_shard_takes_one_descriptor_while_it_is_not_written(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        for _ in range(5):
            upload = self.begin(store, self.part_size)
            self.write(store, upload, 1, noise(self.part_size))
        assert open_below(tmp_path / "store") == 5

    def test_buffers_are_used_again_but_not_those_of_a_writer_that_was_given_up(
        self, store: LocalStore
    ) -> None:
        def lane_of(upload: Upload, number: int, finish: bool) -> int:
            offset = (number - 1) * self.part_size
            writer = store.begin_part(upload, number, offset=offset, size=self.part_size, step=self.part_size)
            assert isinstance(writer, DirectPartWriter)
            place = writer.reserve(self.part_size)
            place[:] = noise(self.part_size)
            writer.commit()
            if finish:
                writer.finish(crc64nvme=0)
            kept.append(writer)
            return id(writer._lane)

        kept: list[PartWriter] = []
        upload = self.begin(store, self.size)
        first = lane_of(upload, 1, finish=True)
        assert lane_of(upload, 2, finish=False) == first
        assert lane_of(upload, 3, finish=True) != first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40 * BLOCK),
    before=st.integers(0, 3),
    cuts=st.lists(st.sampled_from([1000, BLOCK, STEP]) | st.integers(1, STEP), min_size=1, max_size=5),
    chunk=st.sampled_from([BLOCK, 5 * BLOCK, 5 * BLOCK + 1]),
)
def test_any_steps_give_the_same_bytes(
    blocks: BlockFile, tmp_path: Path, size: int, before: int, cuts: list[int], chunk: int
) -> None:
    data, offset = noise(size, seed=size), before * BLOCK
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_direct, "CHUNK", chunk)
        os.truncate(tmp_path / "data", 0)
        fill(writer_of(blocks, tmp_path, offset=offset, size=size), data, cuts)
    assert (tmp_path / "data").read_bytes() == bytes(offset) + data


@pytest.mark.parametrize("shift", [0, 1])
def test_what_the_file_system_does_not_take_goes_through_the_page_cache(
    blocks: BlockFile, tmp_path: Path, shift: int
) -> None:
    """An odd address in memory is refused as an odd block size would be: EINVAL."""
    data, memory = noise(4 * BLOCK), memoryview(mmap.mmap(-1, 8 * BLOCK))
    view = memory[shift : shift + len(data)]
    view[:] = data
    blocks.write(view, BLOCK)
    assert is_cached(tmp_path / "data", BLOCK) == (shift == 1)
    assert (tmp_path / "data").read_bytes() == bytes(BLOCK) + data


@pytest.mark.parametrize("when", ["commit", "finish"])
def test_an_error_of_the_disk_is_the_parts(
    blocks: BlockFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also one that comes while nobody waits for it; and nothing is noted."""
    monkeypatch.setattr(local_direct, "CHUNK", BLOCK)
    writer = writer_of(blocks, tmp_path, offset=0, size=4 * BLOCK)
    with file_size_limit(BLOCK):
        writer.reserve(2 * BLOCK)
        writer.commit()
        writer.reserve(BLOCK)
        with pytest.raises(NoSpace):
            writer.commit() if when == "commit" else writer.finish(crc64nvme=0)
    with pytest.raises(NoSpace):  # whoever goes on in spite of it
        writer.finish(crc64nvme=0)
    assert (tmp_path / "parts").read_text() == ""


def test_a_file_system_without_it_has_none(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("no memory file system")
    path = shared / f"plait-{tmp_path.name}-{os.getpid()}"
    path.touch()
    try:
        assert open_blocks(shared, path, UploadFile(path)) is None
    finally:
        path.unlink()
