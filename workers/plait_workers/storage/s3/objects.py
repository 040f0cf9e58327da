"""Objects of a bucket: looking, listing, reading, small ones whole. Large ones are made in ``store``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Any

from plait.errors import (
    AccessDenied,
    SourceChanged,
    SourceMissing,
    SpecInvalid,
    StoreRefused,
    StoreUnavailable,
)
from plait_workers.checksums import ALGORITHMS, DEFAULT
from plait_workers.storage.base import ObjectInfo, RangeReader
from plait_workers.storage.s3.checksums import full_object, to_base64
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.errors import WrongAnswer
from plait_workers.storage.s3.reader import Pinned, S3Reader

_PRIVATE = ".plait/"
_VERSION_MARK = "@"


class S3Objects:
    """Objects below ``s3://bucket/prefix``. Shared by threads; pickled without its connection.

    Args:
        bucket, prefix: the root; the prefix has no slash at its end.
        connection: shared by all stores of equal options in this process.
    """

    def __init__(self, bucket: str, prefix: str, connection: Connection) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._connection = connection

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def resolved(self) -> str:
        """The same; objects are pinned one by one."""
        return self.uri

    @property
    def scan_bytes(self) -> int:
        """None: from the socket into the caller's."""
        return 0

    @property
    def is_remote(self) -> bool:
        """Yes."""
        return True

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _object(self, key: str, *, read: bool = False) -> dict[str, Any]:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise SpecInvalid("a name leads out of its folder", where=self.uri, found=repr(key))
        found: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + key}
        if read and self._connection.options.requester_pays:
            found["RequestPayer"] = "requester"
        return found

    def _encryption(self) -> dict[str, Any]:
        options, found = self._connection.options, dict[str, Any]()
        if options.kms_key_id is not None:
            found |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": options.kms_key_id}
        if options.storage_class is not None:
            found["StorageClass"] = options.storage_class
        return found

    def now(self) -> float:
        """The clock that writes Last-Modified, to the second: the Date of an answer."""
        answer = self._head(f"{_PRIVATE}clock")
        metadata = answer["ResponseMetadata"] if answer else self._missing_answer
        date = metadata.get("HTTPHeaders", {}).get("date")
        return time.time() if date is None else parsedate_to_datetime(date).timestamp()

    def free_bytes(self) -> int | None:
        """A bucket has no end."""
        return None

    def _head(self, key: str) -> dict[str, Any] | None:
        doing, where = "looking at an object", self._where(key)
        request = self._object(key, read=True)
        try:
            return self._connection.call("head_object", doing, where, ChecksumMode="ENABLED", **request)
        except SourceMissing as error:
            if "NoSuchBucket" in str(error.found):
                raise
            cause = error.__cause__
            self._missing_answer: dict[str, Any] = getattr(cause, "response", {}).get("ResponseMetadata", {})
            return None
        except (StoreRefused, AccessDenied):
            # The answer to HEAD has no body, so no reason: one that has tells, say, of expired credentials.
            bucket, prefix = request["Bucket"], request["Key"]
            self._connection.call("list_objects_v2", doing, where, Bucket=bucket, Prefix=prefix, MaxKeys=1)
            raise

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
        return self._put(key, data, metadata, {"IfNoneMatch": "*"} if if_absent else {})

    def replace(self, key: str, data: bytes, *, version: str) -> bool:
        """One request, as for :meth:`put`; the store compares the ETag."""
        return self._put(key, data, None, {"IfMatch": version})

    def _put(
        self, key: str, data: bytes, metadata: Mapping[str, str] | None, condition: Mapping[str, str]
    ) -> bool:
        where = self._where(key)
        crc = ALGORITHMS[DEFAULT]
        arguments = {
            **self._object(key),
            **self._encryption(),
            "Body": data,
            "Metadata": dict(metadata or {}),
            "ChecksumCRC64NVME": to_base64(crc.hexadecimal(crc.update(data, 0))),
            **condition,
        }
        lost = False

        def once() -> bool:
            nonlocal lost
            try:
                self._connection.once("put_object", "writing an object", where, **arguments)
            except StoreUnavailable:
                lost = True
                raise
            except SourceChanged:  # 412: there is one, or another one
                return lost and self._is_same(key, data, metadata)
            except SourceMissing as error:  # 404: there is none to replace
                if "IfMatch" not in condition or "NoSuchBucket" in str(error.found):
                    raise
                return False
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


def _compare(answer: Mapping[str, Any], data: bytes, where: str) -> None:
    for name, digits in full_object(answer).items():
        found = ALGORITHMS[name].hexadecimal(ALGORITHMS[name].update(data, 0))
        if found != digits:
            raise WrongAnswer("reading an object", where=where, expected=f"{name} {digits}", found=found)
