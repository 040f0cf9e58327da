"""Models of the Hugging Face Hub, against a hub of our own: one commit for all that is read."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import fsspec
import pytest

from plait.errors import AccessDenied, SourceChanged, SourceMissing, StoreUnavailable
from plait.uri import parse_uri
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.fsspec_store import FsspecStore
from tests.support.hub import Hub, serving
from tests.workers.storage.contract import keys, read

pytest.importorskip("huggingface_hub")

DATA = bytes(range(256)) * 64
FILES = {"config.json": b"{}", "model.safetensors": DATA, "folder/model.safetensors": DATA[::-1]}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub("owner/name")) as hub:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": hub.url, "token": False})
        yield hub


def opened(place: str = "hf://owner/name") -> FsspecStore:
    return FsspecStore(parse_uri(place))


def test_reading(hub: Hub) -> None:
    commit = hub.push(FILES)
    store = opened()
    assert keys(store) == sorted(FILES)
    assert [info.key for info in store.list(deep=False)] == ["config.json", "model.safetensors"]
    assert list(store.folders()) == ["folder"]
    assert store.get("config.json", limit=10) == b"{}"
    assert store.head("folder") is None
    assert store.head("nothing") is None
    assert read(store, "model.safetensors", 1000, 5000, bulk=True) == DATA[1000:6000]
    info = store.head("model.safetensors")
    assert info is not None
    assert info.version.endswith(f"@{commit}")
    assert "sha256" in info.checksums
    assert next(store.list("model")) == info
    assert read(opened("hf://owner/name/folder"), "model.safetensors", 0, 9) == DATA[::-1][:9]


def test_all_is_read_from_the_commit_that_was_found_first(hub: Hub) -> None:
    first = hub.push(FILES)
    store = opened()
    assert store.resolved == f"hf://owner/name@{first}"
    assert store.uri == "hf://owner/name"
    second = hub.push({**FILES, "model.safetensors": b"new"})
    hub.log.clear()
    assert read(store, "model.safetensors", 0, len(DATA)) == DATA
    sent: ObjectStore = pickle.loads(pickle.dumps(store))
    assert read(sent, "model.safetensors", 0, len(DATA)) == DATA
    assert sent.uri == store.uri
    reads = [line for line in hub.log if "/resolve/" in line or "/tree/" in line or "/paths-info/" in line]
    assert reads
    assert all(first in line for line in reads)
    later = opened()
    assert later.resolved == f"hf://owner/name@{second}"
    assert later.get("model.safetensors", limit=10) == b"new"


def test_a_plan_of_one_commit_is_not_run_on_another(hub: Hub) -> None:
    """Not even for a file that is the same in both: models are not put together from two commits."""
    hub.push(FILES)
    info = opened().head("config.json")
    assert info is not None
    hub.push({**FILES, "model.safetensors": b"new"})
    with pytest.raises(SourceChanged):
        opened().open("config.json", info.version)


def test_revisions(hub: Hub) -> None:
    first = hub.push(FILES)
    hub.push({"config.json": b"branch"}, "feature")
    assert opened("hf://owner/name@feature").get("config.json", limit=10) == b"branch"
    assert opened(f"hf://owner/name@{first}").resolved == f"hf://owner/name@{first}"
    with pytest.raises(SourceMissing):
        opened("hf://owner/name@nothing").head("config.json")


def test_what_is_not_there_or_not_for_us(hub: Hub) -> None:
    hub.push(FILES)
    with pytest.raises(SourceMissing, match="private"):
        opened("hf://owner/other").head("a")
    store = opened()
    info = store.head("model.safetensors")
    assert info is not None
    reader = store.open("model.safetensors", info.version)
    hub.commits.clear()
    with pytest.raises(SourceChanged):
        reader.read(0, memoryview(bytearray(5)))
    with pytest.raises(SourceChanged):
        store.open("model.safetensors", info.version)
    hub.refuse = 403
    with pytest.raises(AccessDenied):
        opened().head("a")


def test_a_hub_that_does_not_answer(hub: Hub) -> None:
    hub.push(FILES)
    hub.refuse = 500
    with pytest.raises(StoreUnavailable):
        opened().head("a")
    assert len(hub.log) == 5
