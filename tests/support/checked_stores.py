"""Local stores that behave like remote ones: checksums are kept, and reads must be as they were announced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from awscrt.checksums import crc64nvme

from plait_service.prepare import Prepared, prepare
from plait_workers.storage.base import ObjectInfo, RangeReader, Scan
from plait_workers.storage.local import LocalStore
from plait_workers.storage.registry import Stores
from tests.support.merging import spec_of

Damage = Callable[[str, int], bool]
"""Whether to flip a bit of what is read of a file at an offset."""


class _StrictScan:
    """Fails if a read is not in the announced ranges, in their order; counts ranges that were begun."""

    def __init__(
        self, store: RemoteLike, reader: RangeReader, where: str, ranges: Sequence[tuple[int, int]]
    ) -> None:
        self._store, self._reader, self._where = store, reader, where
        self._ranges = list(ranges)
        self._at = self._stop = -1

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        if not (self._at <= offset and offset + len(scratch) <= self._stop):
            start, self._stop = self._ranges.pop(0)
            assert start <= offset <= offset + len(scratch) <= self._stop, "a read out of its range"
            self._store.ranges_begun += 1
        self._at = offset + len(scratch)
        self._store.bytes_read += len(scratch)
        data = self._reader.read(offset, scratch)
        if self._store.damage(self._where, offset):
            scratch[:] = data
            scratch[0] ^= 1
            return scratch
        return data

    def close(self) -> None:
        assert not self._ranges, "a range was announced and not read"


class _Reader:
    def __init__(self, store: RemoteLike, reader: RangeReader, key: str) -> None:
        self._store, self._inner, self._key = store, reader, key
        self.read, self.check, self.close = reader.read, reader.check, reader.close

    def scan(self, ranges: Sequence[tuple[int, int]]) -> Scan:
        return _StrictScan(self._store, self._inner, self._key, ranges)


class RemoteLike(LocalStore):
    """A folder that is read as if over a network."""

    keeps_checksums = True
    ranges_begun = 0
    bytes_read = 0

    def damage(self, key: str, offset: int) -> bool:
        return False

    @property
    def is_remote(self) -> bool:
        return True

    def head(self, key: str) -> ObjectInfo | None:
        info = super().head(key)
        if info is None or not self.keeps_checksums:
            return info
        crc = crc64nvme(Path(self.uri, key).read_bytes())
        return replace(info, checksums={"crc64nvme": f"{crc:016x}"})

    def open(self, key: str, version: str, **options: Any) -> RangeReader:
        return _Reader(self, super().open(key, version), key)


def remote_like(data: dict[str, Any], kind: type[RemoteLike] = RemoteLike) -> Prepared:
    """The merge, planned and run with its sources in such stores."""

    class Places(Stores):
        def open(self, uri: Any) -> Any:
            return kind(uri.local_path) if uri.is_local else super().open(uri)

    prepared = prepare(spec_of(data), places=Places())
    output = LocalStore(Path(prepared.output.uri))
    return replace(prepared, output=output)
