"""Whether K sub-models are there, in a folder and in a bucket."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from plait.errors import AccessDenied
from plait.uri import parse_glob
from plait_service.schedules.ready import Readiness, look
from plait_workers.storage.registry import Stores
from tests.support.s3 import Bucket

Put = Callable[[str, bytes], object]


class Place:
    """Where sub-models appear, file by file."""

    def __init__(self, root: str, put: Put) -> None:
        self.root, self.put = root, put

    def look(self, count: int = 2, marker: str = "index", glob: str = "order-*") -> Readiness:
        return look(parse_glob(f"{self.root}/{glob}"), count=count, marker=marker, places=Stores())


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return Place(bucket.uri("runs"), lambda key, data: bucket.put(f"runs/{key}", data))

    def put(key: str, data: bytes) -> None:
        path = tmp_path / "runs" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return Place(str(tmp_path / "runs"), put)


def index(*shards: str) -> bytes:
    return json.dumps({"weight_map": {f"t{number}": shard for number, shard in enumerate(shards)}}).encode()


def test_a_marker(place: Place) -> None:
    assert str(place.look(2, "_SUCCESS")).startswith("0 of 2 sub-models are ready at ")
    place.put("order-0/_SUCCESS", b"")
    place.put("order-1/model.safetensors", b"1")
    found = place.look(2, "_SUCCESS")
    assert not found.is_ready
    assert (found.whole, found.partial) == ((f"{place.root}/order-0",), (f"{place.root}/order-1",))
    assert "1 of 2" in str(found)
    assert f"not whole: {place.root}/order-1" in str(found)
    place.put("order-1/_SUCCESS", b"")
    assert place.look(2, "_SUCCESS").is_ready
    assert not place.look(3, "_SUCCESS").is_ready
    assert place.look(1, "_SUCCESS").is_ready


def test_single_files(place: Place) -> None:
    place.put("order-0/config.json", b"{}")
    place.put("order-1/model.safetensors", b"1")
    place.put("other/model.safetensors", b"1")
    assert place.look().whole == (f"{place.root}/order-1",)
    place.put("order-0/model.safetensors", b"")
    assert not place.look().is_ready
    place.put("order-0/model.safetensors", b"1")
    assert place.look().is_ready


def test_the_last_shard_of_an_index(place: Place) -> None:
    for number, shards in enumerate(
        [("a.safetensors",), ("a.safetensors", "b.safetensors", "a.safetensors")]
    ):
        assert len(place.look().whole) == number
        place.put(f"order-{number}/a.safetensors", b"1")
        assert len(place.look().whole) == number  # without an index nobody knows how many there will be
        place.put(f"order-{number}/model.safetensors.index.json", index(*shards))
    assert len(place.look().whole) == 1
    place.put("order-1/b.safetensors", b"1")
    assert place.look().is_ready


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"weight_map": 1}', b'{"weight_map": {}}', b'{"weight_map": {"t": [1]}}', b"\xff"],
)
def test_an_index_that_is_none_is_not_ready(place: Place, text: bytes) -> None:
    place.put("order-0/model.safetensors.index.json", text)
    place.put("order-0/a.safetensors", b"1")
    assert place.look(1).partial == (f"{place.root}/order-0",)


def test_globs_in_the_middle(place: Place) -> None:
    for day in ("01", "02"):
        for number in range(2):
            place.put(f"day-{day}/order-{number}/final/model.safetensors", b"1")
    assert place.look(4, glob="day-*/order-?/final").is_ready
    assert not place.look(3, glob="day-02/order-[0-9]/final").is_ready


def test_a_bucket_that_is_not_there_has_no_sub_models(bucket: Bucket) -> None:
    gone = parse_glob(f"s3://{bucket.name}-gone/order-*")
    assert not look(gone, count=1, marker="index", places=Stores()).is_ready


def test_a_store_that_refuses_is_an_error(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("order-0/model.safetensors", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied):
        look(parse_glob(bucket.uri("order-*")), count=1, marker="index", places=Stores())
