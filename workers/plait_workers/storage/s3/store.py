"""A prefix of a bucket as a store: looking, listing, small objects. Uploads are in ``uploads``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Any

from plait.errors import (
    SourceChanged,
    SourceMissing,
    SpecInvalid,
    StoreRefused,
    StoreUnavailable,
    StoreUnsuitable,
)
from plait.spec_storage import StoreOptions
from plait_workers.checksums import ALGORITHMS, DEFAULT
from plait_workers.storage.base import ObjectInfo, RangeReader
from plait_workers.storage.s3.checksums import full_object, to_base64
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.errors import WrongAnswer
from plait_workers.storage.s3.reader import Pinned, S3Reader
from plait_workers.storage.s3.uploads import S3Uploads

_PRIVATE = ".plait/"
_VERSION_MARK = "@"


class S3Store(S3Uploads):
    """Objects below ``s3://bucket/prefix``. Shared by threads; pickled without its connection.

    Args:
        bucket, prefix: the root; the prefix has no slash at its end.
        connection: shared by all stores of equal options in this process.
    """

    def __init__(self, bucket: str, prefix: str, connection: Connection) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._connection = connection

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self._bucket, self._prefix.rstrip("/"), self._connection.options))

    def now(self) -> float:
        """The clock that writes Last-Modified, to the second: the Date of an answer."""
        answer = self._head(f"{_PRIVATE}clock")
        metadata = answer["ResponseMetadata"] if answer else self._missing_answer
        date = metadata.get("HTTPHeaders", {}).get("date")
        return time.time() if date is None else parsedate_to_datetime(date).timestamp()

    def free_bytes(self) -> int | None:
        """A bucket has no end."""
        return None

    def check_writable(self) -> None:
        """Begin an upload and abort it: nothing else tells without leaving something."""
        self.abort(self.create_upload(f"{_PRIVATE}permission", size=0, metadata={}))

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return self._connection.call(
                "head_object",
                "looking at an object",
                self._where(key),
                ChecksumMode="ENABLED",
                **self._object(key, read=True),
            )
        except SourceMissing as error:
            if "NoSuchBucket" in str(error.found):
                raise
            cause = error.__cause__
            self._missing_answer: dict[str, Any] = getattr(cause, "response", {}).get("ResponseMetadata", {})
            return None

    def head(self, key: str) -> ObjectInfo | None:
        """Size, ETag, metadata and checksums."""
        answer = self._head(key)
        return None if answer is None else self._info(key, answer, int(answer["ContentLength"]))

    def _info(self, key: str, answer: Mapping[str, Any], size: int) -> ObjectInfo:
        version, number = str(answer["ETag"]), answer.get("VersionId")
        by_version = self._connection.options.pin == "version" and number not in (None, "null")
        return ObjectInfo(
            key=key,
            size=size,
            version=version,
            modified=answer["LastModified"].timestamp(),
            metadata=answer.get("Metadata", {}),
            checksums=full_object(answer),
            pin=f"{version}{_VERSION_MARK}{number}" if by_version else "",
        )

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[ObjectInfo]:
        """Pages of a thousand; metadata and checksums are left out."""
        found = []
        for page in self._pages(prefix, deep=deep):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                hidden = key.startswith(_PRIVATE) and not prefix.startswith(_PRIVATE.rstrip("/"))
                if key and not key.endswith("/") and not hidden:
                    found.append(self._info(key, item, int(item["Size"])))
        # AWS sorts by the bytes of a key; others have folders of their own order.
        yield from sorted(found, key=lambda info: info.key)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Common prefixes, without a page of the objects below them."""
        found = set()
        for page in self._pages(prefix, deep=False):
            for item in page.get("CommonPrefixes", ()):
                found.add(item["Prefix"].removeprefix(self._prefix + prefix).rstrip("/"))
        yield from sorted(found - {"", _PRIVATE.rstrip("/")})

    def _pages(self, prefix: str, *, deep: bool) -> Iterator[dict[str, Any]]:
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._object(prefix)["Key"]}
        if not deep:
            arguments["Delimiter"] = "/"
        if self._connection.options.requester_pays:
            arguments["RequestPayer"] = "requester"
        while True:
            page = self._connection.call("list_objects_v2", "listing a folder", self.uri, **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def get(self, key: str, *, limit: int) -> bytes | None:
        """One request; the whole object's checksum, where the store keeps one, is compared."""
        where = self._where(key)

        def once() -> bytes | None:
            try:
                answer = self._connection.once(
                    "get_object",
                    "reading an object",
                    where,
                    ChecksumMode="ENABLED",
                    **self._object(key, read=True),
                )
            except SourceMissing as error:
                if "NoSuchBucket" in str(error.found):
                    raise
                return None
            with closing(answer["Body"]) as body:
                if int(answer["ContentLength"]) > limit:
                    raise SpecInvalid(
                        "an object is too large", where=where, expected=f"at most {limit} bytes"
                    )
                data: bytes = self._connection.guarded(body.read, "reading an object", where)
            _compare(answer, data, where)
            return data

        return self._connection.attempt(once)

    def open(self, key: str, version: str, *, bulk: bool = False) -> RangeReader:
        """A reader that sends the ETag with each request; in bulk no look is taken before."""
        etag, _, number = version.partition(_VERSION_MARK)
        pinned = Pinned(
            bucket=self._bucket,
            key=self._object(key)["Key"],
            where=self._where(key),
            etag=etag,
            version_id=number or None,
            requester_pays=bool(self._connection.options.requester_pays),
        )
        return S3Reader(self._connection, pinned)

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """One request. If an answer was lost, what lies there tells whether it was ours."""
        where = self._where(key)
        crc = ALGORITHMS[DEFAULT]
        arguments = {
            **self._object(key),
            **self._encryption(),
            "Body": data,
            "Metadata": dict(metadata or {}),
            "ChecksumCRC64NVME": to_base64(crc.hexadecimal(crc.update(data, 0))),
        }
        if if_absent:
            arguments["IfNoneMatch"] = "*"
        lost = False

        def once() -> bool:
            nonlocal lost
            try:
                self._connection.once("put_object", "writing an object", where, **arguments)
            except StoreUnavailable:
                lost = True
                raise
            except SourceChanged:  # 412: there is one
                return lost and self._is_same(key, data, metadata)
            return True

        return self._connection.attempt(once)

    def _is_same(self, key: str, data: bytes, metadata: Mapping[str, str] | None) -> bool:
        info = self.head(key)
        if info is None or info.size != len(data) or dict(info.metadata) != dict(metadata or {}):
            return False
        return self.get(key, limit=len(data)) == data

    def delete(self, key: str) -> None:
        """One request; none there is success."""
        self._connection.call("delete_object", "removing an object", self._where(key), **self._object(key))

    def probe(self, key: str) -> None:
        """Put an object twice, create-only: the second must be refused. Completing is looked at apart.

        What completion lacks is made up for by looking first; what PUT lacks is not.
        """
        if self._connection.options.unsafe_without_conditional_put:
            return
        try:
            self.put(key, b"1", if_absent=True)
            kept = not self.put(key, b"2", if_absent=True)
            if kept and self._connection.conditional_complete is None:
                self._connection.conditional_complete = self._probe_complete(key)
        except (StoreUnsuitable, StoreRefused):
            kept = False
        finally:
            self.delete(key)
        if not kept:
            raise StoreUnsuitable(
                "the store does not know conditional writes (If-None-Match), so that two merges into one "
                "output could not be kept apart",
                where=self.uri,
                hint="Use one that does, or accept that: storage: {unsafe_without_conditional_put: true}",
            )


def _compare(answer: Mapping[str, Any], data: bytes, where: str) -> None:
    for name, digits in full_object(answer).items():
        found = ALGORITHMS[name].hexadecimal(ALGORITHMS[name].update(data, 0))
        if found != digits:
            raise WrongAnswer("reading an object", where=where, expected=f"{name} {digits}", found=found)


def _rebuild(bucket: str, prefix: str, options: StoreOptions) -> S3Store:
    return S3Store(bucket, prefix, Connection(options))
