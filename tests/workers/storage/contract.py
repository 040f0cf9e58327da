"""What every store must do with whole objects. A store's own test module subclasses this and opens it."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from plait.errors import SpecInvalid
from plait_workers.storage.base import ObjectStore

OpenStore = Callable[[], ObjectStore]
"""Opens another store of the same place, as another process would."""

LEAVING = ["../a", "a/../../b", "/a", "..", "a/..", "a\0b"]


def read(store: ObjectStore, key: str, offset: int, size: int, *, bulk: bool = False) -> bytes:
    info = store.head(key)
    assert info is not None
    reader = store.open(key, info.version, bulk=bulk)
    try:
        data = bytes(reader.read(offset, memoryview(bytearray(size))))
        reader.check()
    finally:
        reader.close()
    return data


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


class ObjectContract:
    """Small objects and range reads. Subclasses give the fixture ``open_store``."""

    part_size: ClassVar[int]

    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: OpenStore) -> ObjectStore:
        return open_store()

    def test_put_and_get(self, store: ObjectStore) -> None:
        assert store.get("a.json", limit=100) is None
        assert store.put("a.json", b"one")
        assert store.get("a.json", limit=3) == b"one"
        assert store.put("a.json", b"")
        assert store.get("a.json", limit=0) == b""

    def test_other_stores_of_the_place_see_it(self, open_store: OpenStore) -> None:
        open_store().put("folder/a", b"x" * 1000, metadata={"k": "v"})
        other = open_store()
        assert other.get("folder/a", limit=1000) == b"x" * 1000
        assert keys(other) == ["folder/a"]
        sent = pickle.loads(pickle.dumps(other))
        assert sent.uri == other.uri
        assert sent.get("folder/a", limit=1000) == b"x" * 1000

    def test_get_refuses_what_is_too_large(self, store: ObjectStore) -> None:
        store.put("a", b"12345")
        with pytest.raises(SpecInvalid, match="too large"):
            store.get("a", limit=4)

    def test_head(self, store: ObjectStore) -> None:
        assert store.head("a") is None
        store.put("a", b"12345", metadata={"plait-fingerprint": "f" * 64, "other": "1"})
        info = store.head("a")
        assert info is not None
        assert (info.key, info.size) == ("a", 5)
        assert info.metadata == {"plait-fingerprint": "f" * 64, "other": "1"}
        assert store.head("a") == info

    def test_a_folder_is_no_object(self, store: ObjectStore) -> None:
        store.put("a/b/c", b"1")
        assert store.head("a") is None
        assert store.head("a/b") is None
        assert store.get("a/b", limit=10) is None
        assert store.head("a/b/c/d") is None
        assert store.get("a/b/c/d", limit=10) is None
        store.delete("a/b/c/d")
        assert keys(store) == ["a/b/c"]

    def test_the_version_changes_with_the_object(self, store: ObjectStore) -> None:
        versions = set()
        for data in (b"one", b"two", b"three", b""):
            store.put("a", data)
            info = store.head("a")
            assert info is not None
            versions.add(info.version)
        assert len(versions) == 4

    def test_metadata_belongs_to_one_object(self, store: ObjectStore) -> None:
        """It ends with its object: not even an object of the same name and size inherits it."""
        for _ in range(20):
            store.put("a", b"one", metadata={"k": "1"})
            store.put("b", b"one", metadata={"k": "2"})
            store.put("a", b"two")
            info = store.head("a")
            assert info is not None
            assert info.metadata == {}
            store.delete("b")
            store.put("b", b"two", if_absent=True)
            info = store.head("b")
            assert info is not None
            assert info.metadata == {}
            store.delete("b")

    def test_if_absent(self, store: ObjectStore) -> None:
        assert store.put("a", b"one", if_absent=True, metadata={"k": "1"})
        assert not store.put("a", b"two", if_absent=True, metadata={"k": "2"})
        assert store.get("a", limit=10) == b"one"
        info = store.head("a")
        assert info is not None
        assert info.metadata == {"k": "1"}
        assert store.put("a", b"two")
        store.delete("a")
        assert store.put("a", b"three", if_absent=True)

    def test_six_threads_and_one_winner(self, open_store: OpenStore) -> None:
        stores = [open_store() for _ in range(6)]
        for number in range(5):
            barrier = threading.Barrier(6)

            def claim(who: int, key: str = f"claim-{number}", barrier: threading.Barrier = barrier) -> bool:
                barrier.wait(30)
                return stores[who].put(
                    key, str(who).encode() * 500, if_absent=True, metadata={"who": str(who)}
                )

            with ThreadPoolExecutor(6) as pool:
                won = list(pool.map(claim, range(6)))
            assert sum(won) == 1
            winner, store = str(won.index(True)), stores[0]
            assert store.get(f"claim-{number}", limit=500) == winner.encode() * 500
            info = store.head(f"claim-{number}")
            assert info is not None
            assert info.metadata == {"who": winner}

    def test_replace(self, store: ObjectStore) -> None:
        assert not store.replace("a", b"one", version="none")
        assert not store.replace("folder/a", b"one", version="none")
        assert keys(store) == []
        store.put("a", b"one", metadata={"k": "1"})
        first = store.head("a")
        assert first is not None
        assert store.replace("a", b"two", version=first.version)
        assert store.get("a", limit=10) == b"two"
        second = store.head("a")
        assert second is not None
        assert second.version != first.version
        assert second.metadata == {}
        assert not store.replace("a", b"three", version=first.version)
        assert store.get("a", limit=10) == b"two"
        store.delete("a")
        assert not store.replace("a", b"three", version=second.version)
        assert keys(store) == []

    def test_of_six_that_replace_a_version_one_succeeds(self, open_store: OpenStore) -> None:
        stores = [open_store() for _ in range(6)]
        for number in range(5):
            key = f"pointer-{number}"
            stores[0].put(key, b"first")
            first = stores[1].head(key)
            assert first is not None
            barrier = threading.Barrier(6)

            def replace(
                who: int, key: str = key, version: str = first.version, barrier: threading.Barrier = barrier
            ) -> bool:
                barrier.wait(30)
                return stores[who].replace(key, b"%d" % who * 500, version=version)

            with ThreadPoolExecutor(6) as pool:
                won = list(pool.map(replace, range(6)))
            assert sum(won) == 1
            assert stores[2].get(key, limit=500) == b"%d" % won.index(True) * 500

    def test_an_overwriter_shows_whole_objects(self, open_store: OpenStore) -> None:
        open_store().put("a", b"0" * 5000)
        done = threading.Event()

        def look() -> set[bytes]:
            store, seen = open_store(), set[bytes]()
            while not done.is_set():
                data = store.get("a", limit=5000)
                assert data is not None
                seen.add(data)
            return seen

        with ThreadPoolExecutor(2) as pool:
            looks = [pool.submit(look) for _ in range(2)]
            store = open_store()
            for number in range(100):
                store.put("a", b"%d" % (number % 10) * 5000)
            done.set()
            for seen in looks:
                assert seen.result() <= {b"%d" % digit * 5000 for digit in range(10)}

    def test_delete(self, store: ObjectStore) -> None:
        store.delete("a")
        store.put("a", b"1")
        store.put("ab", b"1")
        store.delete("a")
        store.delete("a")
        assert store.head("a") is None
        assert keys(store) == ["ab"]

    def test_list(self, store: ObjectStore) -> None:
        assert keys(store) == []
        names = ["b/c", "b-d", "a", "b/a/x", "é", "B", "b0"]
        for name in names:
            store.put(name, name.encode())
        assert keys(store) == sorted(names)
        assert keys(store, "b") == sorted(name for name in names if name.startswith("b"))
        assert keys(store, "b/") == ["b/a/x", "b/c"]
        assert keys(store, "b/a/x") == ["b/a/x"]
        assert keys(store, "b/a/x/") == []
        assert keys(store, "nothing/") == []
        for info in store.list():
            again = store.head(info.key)
            assert again is not None
            assert (info.size, info.version) == (again.size, again.version)
            assert abs(info.modified - again.modified) < 1  # some stores round in one of the two

    def test_time_is_the_stores_own(self, store: ObjectStore) -> None:
        before = store.now()
        store.put("a", b"1")
        info = store.head("a")
        assert info is not None
        assert before - 2 <= info.modified <= store.now() + 2
        assert keys(store) == ["a"]

    @pytest.mark.parametrize("key", LEAVING)
    def test_keys_that_leave_the_folder(self, store: ObjectStore, key: str) -> None:
        for attempt in (
            lambda: store.head(key),
            lambda: store.get(key, limit=10),
            lambda: store.put(key, b"x"),
            lambda: store.put(key, b"x", if_absent=True),
            lambda: store.replace(key, b"x", version="v"),
            lambda: store.delete(key),
            lambda: store.open(key, "v"),
            lambda: store.create_upload(key, size=1, metadata={}),
            lambda: list(store.list(key)),
        ):
            with pytest.raises(SpecInvalid):
                attempt()
        assert keys(store) == []
