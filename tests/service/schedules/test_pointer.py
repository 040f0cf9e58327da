"""The ``latest`` object, alone and with others that move it, in a folder and in a bucket."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from plait.errors import OutputExists, SpecInvalid
from plait.uri import Uri, parse_uri
from plait_service.schedules.pointer import Pointer, move
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.registry import Stores, open_store
from tests.service.schedules.world import START
from tests.support.s3 import Bucket


def pointer(number: int, job: str | None = None) -> Pointer:
    return Pointer(
        output=f"s3://models/merged/{number}",
        job=job or f"j-{number}",
        schedule="s-1",
        due=START + timedelta(days=number),
        fingerprint=f"{number:064x}",
        updated=START,
    )


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Uri:
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return parse_uri(bucket.uri("merged/latest.json"))
    return parse_uri(str(tmp_path / "merged/latest.json"))


def folder_of(place: Uri) -> ObjectStore:
    return open_store(parse_uri(str(place).rpartition("/")[0]))


def said(place: Uri) -> dict[str, Any]:
    data = folder_of(place).get("latest.json", limit=10_000)
    assert data is not None
    found: dict[str, Any] = json.loads(data)
    return found


def test_it_says_where_the_newest_result_lies(place: Uri) -> None:
    assert move(place, pointer(1), Stores())
    assert said(place) == {
        "output": "s3://models/merged/1",
        "job": "j-1",
        "schedule": "s-1",
        "due": "2026-11-22T00:30:00+00:00",
        "fingerprint": f"{1:064x}",
        "updated": "2026-11-21T00:30:00+00:00",
    }
    assert move(place, pointer(2), Stores())
    assert said(place)["job"] == "j-2"


def test_it_never_goes_back(place: Uri) -> None:
    assert move(place, pointer(2), Stores())
    assert not move(place, pointer(1), Stores())
    assert said(place)["job"] == "j-2"
    assert move(place, pointer(2, job="another"), Stores())  # of another schedule, at the same moment
    assert said(place)["job"] == "another"


def test_moving_it_again_changes_nothing(place: Uri) -> None:
    """After a kill between the move and the note of it."""
    assert move(place, pointer(1), Stores())
    before = folder_of(place).head("latest.json")
    assert move(place, pointer(1), Stores())
    assert folder_of(place).head("latest.json") == before


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"not JSON",
        b"[]",
        b"{}",
        b'{"due": 1, "job": "x"}',
        b'{"due": "2026-01-01T00:00:00", "job": "x"}',
        b"\xff",
        b'{"due": "2020-01-01T00:00:00+00:00", "job": "x"}' + b" " * 70_000,
    ],
)
def test_what_is_no_pointer_is_left_alone(place: Uri, other: bytes) -> None:
    folder_of(place).put("latest.json", other)
    with pytest.raises(OutputExists, match="Remove it"):
        move(place, pointer(1), Stores())
    assert folder_of(place).get("latest.json", limit=100_000) == other


def test_of_many_that_move_it_the_newest_stays(place: Uri) -> None:
    """Threads move it to twelve moments, in any order; whoever looks never sees it go back."""
    barrier = threading.Barrier(7)
    seen: list[str] = []
    done = threading.Event()

    def mover(first: int) -> list[bool]:
        barrier.wait(30)
        return [move(place, pointer(number), Stores()) for number in (first, first + 6)]

    def watch() -> None:
        store = folder_of(place)
        barrier.wait(30)
        while not done.is_set():
            data = store.get("latest.json", limit=10_000)
            if data is not None:
                seen.append(json.loads(data)["due"])

    with ThreadPoolExecutor(7) as pool:
        watcher = pool.submit(watch)
        moved = [mover_.result() for mover_ in [pool.submit(mover, number) for number in range(6)]]
        done.set()
        watcher.result()
    assert moved[5][1]  # the newest
    assert said(place)["job"] == "j-11"
    assert seen == sorted(seen)
    assert seen


def test_a_place_that_is_only_read() -> None:
    with pytest.raises(SpecInvalid, match="not written to"):
        move(parse_uri("memory://bucket/latest.json"), pointer(1), Stores())
