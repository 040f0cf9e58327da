"""Reading pinned ranges through fsspec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final

from plait.errors import InternalError, SourceChanged, SourceMissing, SpecInvalid
from plait_workers.storage.base import Scan
from plait_workers.storage.fsspec_info import version_of
from plait_workers.storage.fsspec_system import FsspecSystem, ShortAnswer

CHUNK: Final = 4 << 20
"""Bytes of one request. A scan holds two such pieces: the one that is read and the one that comes."""


class FsspecReader:
    """One file at one version. Threads share it.

    Raises on opening:
        SourceChanged: another version lies there, or nothing.
        SpecInvalid: the store tells nothing by which a change would be seen.
    """

    def __init__(self, system: FsspecSystem, key: str, version: str) -> None:
        self._system = system
        self._key = key
        self._version = version
        if not version:
            raise SpecInvalid(
                "the store tells nothing by which a change of this file would be seen",
                where=system.where(key),
                expected="an ETag, a checksum or a time of change",
                hint="Copy the model to a local folder or to s3://",
            )
        info = self._look()
        self._size = int(info["size"])
        self._pin = system.pin(info)

    def _look(self) -> dict[str, Any]:
        info = self._system.look(self._key)
        if info is None:
            raise self._changed("no file")
        found = version_of(info, self._system.commit)
        if found != self._version:
            raise self._changed(f"version {found}")
        return info

    def _changed(self, found: str) -> SourceChanged:
        return SourceChanged(
            "a source changed after the plan was made",
            where=self._system.where(self._key),
            expected=f"version {self._version}",
            found=found,
            hint="Run the merge again once the source is at rest",
        )

    def fetch(self, start: int, stop: int) -> bytes:
        """Exactly these bytes, by one request."""
        if stop > self._size:
            raise self._changed(f"{self._size} bytes where {stop} are read")
        try:
            return self._system.fetch(self._key, start, stop, **self._pin)
        except SourceMissing:
            raise self._changed("no file of this version") from None
        except ShortAnswer:
            self._look()  # a file that was cut is the likeliest reason
            raise

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """Fill ``scratch``, a few MiB a request."""
        for at in range(0, len(scratch), CHUNK):
            stop = min(at + CHUNK, len(scratch))
            scratch[at:stop] = self.fetch(offset + at, offset + stop)
        return scratch

    def scan(self, ranges: Sequence[tuple[int, int]]) -> Scan:
        """Ask for the first few MiB at once; from then on a piece comes while the one before is read."""
        return FsspecScan(self, ranges)

    def submit(self, start: int, stop: int) -> Future[bytes]:
        """Begin :meth:`fetch`."""
        return self._system.submit(self.fetch, start, stop)

    def check(self) -> None:
        """Look again. A commit's files never change, so where one is read there is nothing to ask."""
        if self._system.commit is None:
            self._look()

    def close(self) -> None:
        """Nothing is held between two reads."""


class FsspecScan:
    """Ranges front to back, one piece ahead; holds two pieces of ``CHUNK`` bytes at most."""

    def __init__(self, reader: FsspecReader, ranges: Sequence[tuple[int, int]]) -> None:
        self._reader = reader
        self._left = _pieces(ranges)
        self._start = self._stop = 0
        self._data: bytes = b""
        self._coming: tuple[int, int, Future[bytes]] | None = None
        self._begin(0)

    def _begin(self, offset: int) -> None:
        """Ask for the first piece that ends behind ``offset``."""
        self._coming = None
        for start, stop in self._left:
            if stop > offset:
                self._coming = (start, stop, self._reader.submit(start, stop))
                return

    def _advance(self, offset: int) -> None:
        """Take the piece that holds ``offset``, and ask for the one behind it."""
        if self._coming is not None and self._coming[1] <= offset:
            self._coming[2].cancel()
            self._begin(offset)
        if self._coming is None or offset < self._coming[0]:
            raise InternalError("a scan is read outside of its ranges", found=f"offset {offset}")
        start, stop, future = self._coming
        self._data = b""
        self._data = future.result()
        self._start, self._stop = start, stop
        self._begin(stop)

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """Fill ``scratch``, which may span pieces."""
        done = 0
        while done < len(scratch):
            at = offset + done
            if not self._start <= at < self._stop:
                self._advance(at)
            piece = memoryview(self._data)[at - self._start : at - self._start + len(scratch) - done]
            scratch[done : done + len(piece)] = piece
            done += len(piece)
        return scratch

    def close(self) -> None:
        """Drop both pieces; a request that is under way ends unseen."""
        if self._coming is not None:
            self._coming[2].cancel()
        self._coming = None
        self._left = iter(())
        self._start = self._stop = 0
        self._data = b""


def _pieces(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in ranges:
        for at in range(start, stop, CHUNK):
            yield at, min(at + CHUNK, stop)
