"""What every store must do with uploads in parts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
from awscrt.checksums import crc64nvme

from plait.errors import PlaitError, UploadGone
from plait_workers.storage.base import ObjectInfo, ObjectStore, PartInfo, Upload
from tests.workers.storage.contract import OpenStore, keys, read
from tests.workers.storage.contract_readers import ReaderContract

KEY = "model-00001-of-00002.safetensors"
METADATA = {"plait-fingerprint": "0" * 64}


def crc_of(data: bytes) -> str:
    return f"{crc64nvme(data):016x}"


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


class UploadContract(ReaderContract):
    """Parts of ``part_size`` bytes, the last one shorter."""

    winners: ClassVar[range] = range(1, 2)
    """How many of four that complete an upload at once may be told that it was them."""

    @property
    def size(self) -> int:
        return 3 * self.part_size + 1234

    def write(self, store: ObjectStore, upload: Upload, number: int, data: bytes, step: int = 0) -> PartInfo:
        """Write part ``number`` of an object of these bytes, in steps of odd sizes."""
        start = (number - 1) * self.part_size
        part = data[start : start + self.part_size]
        step = step or max(1, len(part))
        writer = store.begin_part(upload, number, offset=start, size=len(part), step=step)
        for at in range(0, len(part), step):
            piece = part[at : at + step]
            writer.reserve(len(piece))[:] = piece
            writer.commit()
        return writer.finish(crc64nvme=crc64nvme(part))

    def begin(self, store: ObjectStore, size: int, key: str = KEY) -> Upload:
        upload = store.create_upload(key, size=size, metadata=METADATA)
        assert (upload.key, upload.size) == (key, size)
        return upload

    def complete(
        self, store: ObjectStore, upload: Upload, data: bytes, parts: Sequence[PartInfo] | None = None
    ) -> ObjectInfo:
        return store.complete(
            upload, store.list_parts(upload) if parts is None else parts, crc64nvme=crc_of(data)
        )

    @pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (3, 1, 4, 2)])
    @pytest.mark.parametrize("step", [0, 1000])
    def test_parts_in_any_order_by_two_stores(
        self, open_store: OpenStore, order: tuple[int, ...], step: int
    ) -> None:
        first, second = open_store(), open_store()
        data = noise(self.size)
        upload = self.begin(first, self.size)
        written = {}
        for turn, number in enumerate(order):
            written[number] = self.write((first, second)[turn % 2], upload, number, data, step)
            assert first.head(KEY) is None
        listed = open_store().list_parts(upload)
        assert [part.number for part in listed] == [1, 2, 3, 4]
        assert list(listed) == [written[number] for number in (1, 2, 3, 4)]
        assert [part.size for part in listed] == [self.part_size] * 3 + [1234]
        info = self.complete(second, upload, data)
        assert (info.key, info.size, info.metadata) == (KEY, self.size, METADATA)
        assert info.crc64nvme in (crc_of(data), None)
        assert first.head(KEY) == info
        assert read(first, KEY, 0, self.size) == data

    def test_nothing_shows_before_it_is_complete(self, open_store: OpenStore) -> None:
        store, data = open_store(), noise(self.size)
        upload = self.begin(store, self.size)
        for number in (1, 2, 3, 4):
            self.write(store, upload, number, data)
            store.flush(upload)
            assert store.get(KEY, limit=100) is None
            assert keys(open_store()) == []
        self.complete(store, upload, data)
        assert read(open_store(), KEY, 0, self.size) == data
        assert keys(open_store()) == [KEY]

    def test_what_lies_there_is_never_replaced(self, open_store: OpenStore) -> None:
        store, data = open_store(), noise(10)
        upload = self.begin(store, 10)
        self.write(store, upload, 1, data)
        open_store().put(KEY, b"somebody else's")
        with pytest.raises(UploadGone):
            self.complete(store, upload, data)
        assert store.get(KEY, limit=100) == b"somebody else's"
        open_store().delete(KEY)
        self.complete(store, upload, data)
        assert store.get(KEY, limit=100) == data

    def test_an_object_in_a_folder(self, store: ObjectStore) -> None:
        data = noise(10)
        upload = self.begin(store, 10, "folder/of/folders/a")
        self.write(store, upload, 1, data)
        self.complete(store, upload, data)
        assert keys(store) == ["folder/of/folders/a"]

    def test_an_empty_object(self, store: ObjectStore) -> None:
        upload = self.begin(store, 0)
        assert list(store.list_parts(upload)) == []
        self.write(store, upload, 1, b"")
        assert [(part.number, part.size) for part in store.list_parts(upload)] == [(1, 0)]
        info = self.complete(store, upload, b"")
        assert (info.size, info.metadata) == (0, METADATA)
        assert store.get(KEY, limit=0) == b""

    def test_parts_by_many_threads(self, open_store: OpenStore) -> None:
        count = 24
        data = noise(count * self.part_size - 17)
        first = open_store()
        upload = self.begin(first, len(data))
        stores = [first, open_store()]
        with ThreadPoolExecutor(6) as pool:
            written = list(
                pool.map(lambda n: self.write(stores[n % 2], upload, n, data, step=700), range(1, count + 1))
            )
        assert list(first.list_parts(upload)) == written
        self.complete(first, upload, data)
        assert read(first, KEY, 0, len(data)) == data

    def test_a_part_written_again_replaces_the_first(self, open_store: OpenStore) -> None:
        store, data = open_store(), noise(self.size)
        upload = self.begin(store, self.size)
        wrong = self.write(store, upload, 2, noise(self.size, seed=1))
        written = [self.write(open_store(), upload, number, data) for number in (1, 2, 3, 4)]
        assert written[1].etag != wrong.etag
        listed = store.list_parts(upload)
        assert [part for part in listed if part != wrong] == written
        self.complete(store, upload, data, written)
        assert read(store, KEY, 0, self.size) == data

    def test_unfinished_parts_are_not_listed(self, store: ObjectStore) -> None:
        upload = self.begin(store, self.size)
        writer = store.begin_part(upload, 1, offset=0, size=self.part_size, step=100)
        writer.reserve(100)[:] = bytes(100)
        writer.commit()
        assert list(store.list_parts(upload)) == []
        with pytest.raises(PlaitError):
            writer.finish(crc64nvme=0)
        assert list(store.list_parts(upload)) == []

    def test_a_part_cannot_outgrow_itself(self, store: ObjectStore) -> None:
        upload = self.begin(store, self.size)
        writer = store.begin_part(upload, 4, offset=3 * self.part_size, size=1234, step=1000)
        with pytest.raises(PlaitError):
            writer.reserve(1001)
        writer.reserve(1000)[:] = bytes(1000)
        writer.commit()
        with pytest.raises(PlaitError):
            writer.reserve(235)

    def test_missing_parts_are_not_completed(self, store: ObjectStore) -> None:
        data = noise(self.size)
        upload = self.begin(store, self.size)
        for number in (1, 2, 4):
            self.write(store, upload, number, data)
        with pytest.raises(PlaitError):
            self.complete(store, upload, data)
        assert store.head(KEY) is None
        self.write(store, upload, 3, data)
        self.complete(store, upload, data)
        assert read(store, KEY, 0, self.size) == data

    def gone(self, store: ObjectStore, upload: Upload, parts: Sequence[PartInfo]) -> None:
        with pytest.raises(UploadGone):
            store.list_parts(upload)
        with pytest.raises(UploadGone):
            store.complete(upload, parts, crc64nvme="0" * 16)
        with pytest.raises(UploadGone):
            self.write(store, upload, 1, noise(self.size, seed=9))

    def test_complete_twice(self, open_store: OpenStore) -> None:
        first, second, data = open_store(), open_store(), noise(self.size)
        upload = self.begin(first, self.size)
        for number in (1, 2, 3, 4):
            self.write(first, upload, number, data)
        parts = first.list_parts(upload)
        info = self.complete(second, upload, data, parts)
        for store in (first, second, open_store()):
            self.gone(store, upload, parts)
        assert open_store().head(KEY) == info

    def test_two_complete_at_once(self, open_store: OpenStore) -> None:
        for _ in range(5):
            first, data = open_store(), noise(10)
            first.delete(KEY)
            upload = self.begin(first, 10)
            self.write(first, upload, 1, data)
            parts, barrier = first.list_parts(upload), threading.Barrier(4)

            def complete(
                _: int,
                upload: Upload = upload,
                parts: Sequence[PartInfo] = parts,
                barrier: threading.Barrier = barrier,
            ) -> bool:
                store = open_store()
                barrier.wait(30)
                try:
                    store.complete(upload, parts, crc64nvme=crc_of(noise(10)))
                except UploadGone:
                    return False
                return True

            with ThreadPoolExecutor(4) as pool:
                assert sum(pool.map(complete, range(4))) in self.winners
            info = first.head(KEY)
            assert info is not None
            assert info.metadata == METADATA
            assert read(first, KEY, 0, 10) == data

    def test_abort(self, open_store: OpenStore) -> None:
        first, second, data = open_store(), open_store(), noise(self.size)
        upload = self.begin(first, self.size)
        parts = [self.write(first, upload, number, data) for number in (1, 2, 3, 4)]
        second.abort(upload)
        for store in (first, second, open_store()):
            self.gone(store, upload, parts)
            store.abort(upload)
        assert keys(open_store()) == []

    def test_a_writer_left_over_meets_no_other_upload(self, open_store: OpenStore) -> None:
        store, data = open_store(), noise(self.size)
        old = self.begin(store, self.size)
        writer = store.begin_part(old, 1, offset=0, size=self.part_size, step=self.part_size)
        place = writer.reserve(self.part_size)
        store.abort(old)
        new = self.begin(store, self.size, "another")
        for number in (1, 2, 3, 4):
            self.write(store, new, number, data)
        place[:] = bytes(len(place))
        with pytest.raises(UploadGone):  # noqa: PT012 - which of the two says so is the store's choice
            writer.commit()
            writer.finish(crc64nvme=0)
        self.complete(store, new, data)
        assert read(store, "another", 0, self.size) == data
        assert keys(store) == ["another"]
