"""Reading pinned ranges: every answer is checked, a body that breaks off is taken up where it broke.

botocore hands over whatever comes. A server that ignores Range, answers from another version, or stops
early would give wrong bytes without a word; so status, Content-Range, ETag and byte count are compared
with what was asked, each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from plait.errors import InternalError, SourceChanged, SourceMissing, StoreUnavailable
from plait_workers.storage.base import NEAR, Scan
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.errors import WrongAnswer, map_error


@dataclass(frozen=True, kw_only=True, slots=True)
class Pinned:
    """One version of one object.

    Args:
        etag: as the store writes it, quotes included.
        version_id: read by it, where the bucket keeps versions and the spec says so.
    """

    bucket: str
    key: str
    where: str
    etag: str
    version_id: str | None
    requester_pays: bool

    def request(self) -> dict[str, Any]:
        """The arguments of every request that reads it."""
        found: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key, "IfMatch": self.etag}
        if self.version_id is not None:
            found["VersionId"] = self.version_id
        if self.requester_pays:
            found["RequestPayer"] = "requester"
        return found

    def changed(self, found: str) -> SourceChanged:
        """The error of an object that is another one now."""
        return SourceChanged(
            "a source changed after the plan was made",
            where=self.where,
            expected=f"version {self.etag}",
            found=found,
            hint="Run the merge again once the source is at rest",
        )


class Body:
    """The answer to one range request, checked but for its bytes."""

    def __init__(self, answer: dict[str, Any], pinned: Pinned, start: int, stop: int) -> None:
        self._stream: Any = answer["Body"]
        self.at = start
        self.stop = stop
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        said = str(answer.get("ContentRange", "none"))
        asked = f"bytes {start}-{stop - 1}/"
        wrong = None
        if status != 206:
            wrong = f"status {status} for a range"
        elif not said.startswith(asked):
            wrong = f"Content-Range {said!r} for {asked!r}"
        elif answer.get("ContentLength") != stop - start:
            wrong = f"{answer.get('ContentLength')} bytes for {stop - start}"
        if wrong is None and answer.get("ETag") == pinned.etag:
            return
        self.close()
        if wrong is None:
            raise pinned.changed(f"version {answer.get('ETag')}")
        raise WrongAnswer("reading a source", where=pinned.where, found=wrong)

    def read_into(self, target: memoryview) -> int:
        """Some bytes, at least one; 0 says that the body ended early."""
        count: int = self._stream.readinto(target[: self.stop - self.at])
        self.at += count
        return count

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        with suppress(Exception):
            self._stream.close()


class S3Scan:
    """Ranges of one object, front to back; the next range is asked for while this one is read."""

    def __init__(
        self,
        connection: Connection,
        pinned: Pinned,
        ranges: Sequence[tuple[int, int]],
        *,
        ahead: bool = True,
    ) -> None:
        self._connection = connection
        self._pinned = pinned
        self._ranges = [(start, stop) for start, stop in ranges if start < stop]
        self._next = 0
        self._ahead: Future[Body] | None = None
        self._body: Body | None = None
        self._at = self._stop = self._ahead_at = -1
        self._asks_ahead = ahead
        self._ask_ahead()

    def _ask_ahead(self) -> None:
        if self._asks_ahead and self._next < len(self._ranges):
            start, stop = self._ranges[self._next]
            self._ahead_at = start
            self._ahead = self._connection.submit(lambda: self._open(start, stop))

    def _open(self, start: int, stop: int) -> Body:
        pinned = self._pinned
        try:
            answer = self._connection.once(
                "get_object",
                "reading a source",
                pinned.where,
                Range=f"bytes={start}-{stop - 1}",
                **pinned.request(),
            )
        except SourceChanged:
            raise pinned.changed("another version") from None
        except SourceMissing:
            raise pinned.changed("no object") from None
        return Body(answer, pinned, start, stop)

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """Fill ``scratch``; each new byte starts patience anew."""
        if offset != self._at or self._at == self._stop:
            self._go_to(offset)
        if offset + len(scratch) > self._stop:
            raise self._out_of_range(offset)
        done = 0
        while done < len(scratch):
            rest = scratch[done:]
            try:
                count = self._some(rest)
            except StoreUnavailable:
                count = self._connection.attempt(lambda rest=rest: self._some(rest))  # type: ignore[misc]
            done += count
        return scratch

    def _go_to(self, offset: int) -> None:
        """The start of the next range, or a little further in this one."""
        if 0 <= self._at <= offset < self._stop and offset - self._at <= NEAR:
            gap = offset - self._at
            if gap:
                self.read(self._at, memoryview(bytearray(gap)))
            return
        self._drop()
        if self._next < len(self._ranges) and self._ranges[self._next][0] == offset:
            self._at, self._stop = self._ranges[self._next]
            self._next += 1
            return
        raise self._out_of_range(offset)

    def _out_of_range(self, offset: int) -> InternalError:
        return InternalError("a scan is read out of its ranges", where=self._pinned.where, found=str(offset))

    def _some(self, target: memoryview) -> int:
        body = self._body
        if body is None:
            body = self._body = self._begin()
        try:
            count = body.read_into(target)
        except Exception as error:
            self._drop()
            mapped = map_error(error, "reading a source", self._pinned.where)
            raise mapped from error
        if count == 0 and len(target):
            self._drop()
            raise StoreUnavailable(
                "reading a source", where=self._pinned.where, found="a body that ended early"
            )
        self._at += count
        if self._at == self._stop:
            self._drop()
        return count

    def _begin(self) -> Body:
        """The answer that was asked for ahead, if it begins here; else a new one, from here on."""
        if self._ahead is not None and self._ahead_at == self._at:
            ahead, self._ahead = self._ahead, None
            body = ahead.result()
        else:
            body = self._open(self._at, self._stop)
        if self._ahead is None:
            self._ask_ahead()
        return body

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        """Let go of connections, of one that is still being opened too."""
        self._drop()
        if self._ahead is not None:
            self._ahead.add_done_callback(_close_late)
            self._ahead.cancel()
            self._ahead = None


def _close_late(future: Future[Body]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


class S3Reader:
    """One object, pinned by ETag; any number of threads may read it."""

    def __init__(self, connection: Connection, pinned: Pinned) -> None:
        self._connection = connection
        self._pinned = pinned

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """One request for one range."""
        span = (offset, offset + len(scratch))
        scan = S3Scan(self._connection, self._pinned, [span], ahead=False)
        try:
            return scan.read(offset, scratch) if len(scratch) else scratch
        finally:
            scan.close()

    def scan(self, ranges: Sequence[tuple[int, int]]) -> Scan:
        """One request a range, the first at once."""
        return S3Scan(self._connection, self._pinned, ranges)

    def check(self) -> None:
        """Nothing: each answer was compared with the pin."""

    def close(self) -> None:
        """Nothing is held between two scans."""
