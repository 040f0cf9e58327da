"""What every store's readers must do: ranges, and the pin to one version."""

from __future__ import annotations

import pytest

from plait.errors import PlaitError, SourceChanged, SourceMissing
from plait_workers.storage.base import ObjectStore
from tests.workers.storage.contract import ObjectContract, read


class ReaderContract(ObjectContract):
    """Reads of ranges, in bulk and not."""

    @pytest.mark.parametrize("bulk", [False, True])
    def test_range_reads(self, store: ObjectStore, bulk: bool) -> None:
        data = bytes(range(256)) * 40
        store.put("a", data)
        for offset, size in ((0, 1), (0, len(data)), (255, 2), (len(data) - 1, 1), (1001, 4097), (7, 0)):
            assert read(store, "a", offset, size, bulk=bulk) == data[offset : offset + size]
        store.put("empty", b"")
        assert read(store, "empty", 0, 0, bulk=bulk) == b""

    @pytest.mark.parametrize("bulk", [False, True])
    @pytest.mark.parametrize(
        "data", [b"another", b"the same size", b""], ids=["other size", "same size", "empty"]
    )
    def test_a_reader_notices_an_overwrite(self, store: ObjectStore, data: bytes, bulk: bool) -> None:
        store.put("a", b"of equal size")
        info = store.head("a")
        assert info is not None
        reader = store.open("a", info.version, bulk=bulk)
        assert bytes(reader.read(0, memoryview(bytearray(2)))) == b"of"
        reader.check()
        store.put("a", data)
        # A store that compares each answer with the pin has nothing to check afterwards.
        with pytest.raises(SourceChanged) as changed:  # noqa: PT012
            reader.read(0, memoryview(bytearray(2)))
            reader.check()
        assert "a" in str(changed.value.where)
        reader.close()
        with pytest.raises(SourceChanged):
            store.open("a", info.version, bulk=bulk).read(0, memoryview(bytearray(2)))

    @pytest.mark.parametrize("bulk", [False, True])
    def test_a_reader_notices_a_deletion(self, store: ObjectStore, bulk: bool) -> None:
        store.put("a", b"12345")
        info = store.head("a")
        assert info is not None
        reader = store.open("a", info.version, bulk=bulk)
        reader.read(0, memoryview(bytearray(5)))
        store.delete("a")
        with pytest.raises(SourceChanged):  # noqa: PT012
            reader.read(0, memoryview(bytearray(5)))
            reader.check()
        reader.close()
        with pytest.raises((SourceChanged, SourceMissing)):
            store.open("a", info.version, bulk=bulk).read(0, memoryview(bytearray(5)))

    def test_a_read_beyond_the_end_is_an_error(self, store: ObjectStore) -> None:
        store.put("a", b"12345")
        with pytest.raises(PlaitError):
            read(store, "a", 3, 3)
