"""Multipart uploads: the half of the store that makes large objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from plait.errors import (
    SourceChanged,
    SourceMissing,
    SpecInvalid,
    StoreRefused,
    StoreUnavailable,
    StoreUnsuitable,
    UploadGone,
)
from plait_workers.checksums import ALGORITHMS, DEFAULT
from plait_workers.storage.base import ObjectInfo, PartInfo, PartLimits, PartWriter, Upload
from plait_workers.storage.s3.checksums import to_base64
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.parts import S3PartWriter

LIMITS: Final = PartLimits(smallest=5 << 20, largest=5 << 30, most=10_000)
_PRIVATE = ".plait/"


class S3Uploads:
    """What a store does with uploads; any process that knows an id may add parts."""

    _bucket: str
    _prefix: str
    _connection: Connection

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def resolved(self) -> str:
        """The same; objects are pinned one by one."""
        return self.uri

    @property
    def is_remote(self) -> bool:
        """Yes."""
        return True

    @property
    def part_limits(self) -> PartLimits | None:
        """S3's own."""
        return LIMITS

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

    def create_upload(self, key: str, *, size: int, metadata: Mapping[str, str]) -> Upload:
        """One request. If its answer is lost, an upload stays that nobody knows; ``plait clean`` lists it."""
        answer = self._connection.call(
            "create_multipart_upload",
            "beginning an upload",
            self._where(key),
            Metadata=dict(metadata),
            ChecksumAlgorithm="CRC64NVME",
            ChecksumType="FULL_OBJECT",
            **self._object(key),
            **self._encryption(),
        )
        return Upload(key=key, id=str(answer["UploadId"]), size=size)

    def part_buffer_bytes(self, part_size: int, step: int) -> int:
        """The whole part: its checksum goes before its bytes."""
        return part_size

    def begin_part(self, upload: Upload, number: int, *, offset: int, size: int, step: int) -> PartWriter:
        """Filled in memory, sent when it is whole."""
        return S3PartWriter(
            connection=self._connection,
            upload=upload,
            number=number,
            size=size,
            step=step,
            where=self._where(upload.key),
            request=self._object(upload.key),
        )

    def flush(self, upload: Upload) -> None:
        """A part whose upload was answered is durable."""

    def list_parts(self, upload: Upload) -> Sequence[PartInfo]:
        """All pages of a thousand."""
        parts: list[PartInfo] = []
        arguments: dict[str, Any] = {**self._object(upload.key), "UploadId": upload.id}
        while True:
            page = self._upload_call("list_parts", "listing parts", upload, **arguments)
            parts += [
                PartInfo(number=int(part["PartNumber"]), size=int(part["Size"]), etag=str(part["ETag"]))
                for part in page.get("Parts", ())
            ]
            if not page.get("IsTruncated"):
                return sorted(parts, key=lambda part: part.number)
            arguments["PartNumberMarker"] = page["NextPartNumberMarker"]

    def _upload_call(self, operation: str, doing: str, upload: Upload, **arguments: Any) -> dict[str, Any]:
        try:
            return self._connection.call(operation, doing, self._where(upload.key), **arguments)
        except SourceMissing as error:  # some servers say no more than 404
            if "NoSuchBucket" in str(error.found):
                raise
            raise UploadGone(doing, where=self._where(upload.key)) from error

    def complete(self, upload: Upload, parts: Sequence[PartInfo], *, crc64nvme: str) -> ObjectInfo:
        """Create-only, with the whole object's checksum; the store compares both.

        A store that does not know conditional completion is looked at first. A lost answer is asked for
        again; the store then says that the upload is gone, and whoever completes looks at what lies there.
        """
        answer = self._complete(upload, parts, crc64nvme)
        info = self.head(upload.key)
        if info is None or info.version != answer.get("ETag"):
            raise UploadGone("completing an upload", where=self._where(upload.key))
        return info

    def _complete(self, upload: Upload, parts: Sequence[PartInfo], crc64nvme: str) -> dict[str, Any]:
        conditional = self._connection.conditional_complete is not False
        if not conditional and self.head(upload.key) is not None:
            raise UploadGone("completing an upload", where=self._where(upload.key), found="an object there")
        try:
            return self._upload_call(
                "complete_multipart_upload",
                "completing an upload",
                upload,
                UploadId=upload.id,
                MultipartUpload={"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]},
                ChecksumCRC64NVME=to_base64(crc64nvme),
                ChecksumType="FULL_OBJECT",
                **({"IfNoneMatch": "*"} if conditional else {}),
                **self._object(upload.key),
            )
        except SourceChanged as error:  # 412: something lies there already
            raise UploadGone("completing an upload", where=self._where(upload.key)) from error
        except StoreUnsuitable:
            if self._connection.conditional_complete is not None:
                raise
            self._connection.conditional_complete = False
            return self._complete(upload, parts, crc64nvme)

    def _probe_complete(self, key: str) -> bool:
        """Whether completing an upload where an object lies is refused, as it was asked to be."""
        upload = self.create_upload(key, size=1, metadata={})
        try:
            writer = self.begin_part(upload, 1, offset=0, size=1, step=1)
            writer.reserve(1)[:] = b"1"
            writer.commit()
            crc = ALGORITHMS[DEFAULT].update(b"1", 0)
            part = writer.finish(crc64nvme=crc)
            self._complete(upload, [part], ALGORITHMS[DEFAULT].hexadecimal(crc))
        except UploadGone:
            return self._connection.conditional_complete is not False
        except StoreRefused:
            return False
        finally:
            self.abort(upload)
        return False

    def head(self, key: str) -> ObjectInfo | None:
        """See the store."""
        raise NotImplementedError

    def list_uploads(self) -> Iterator[Upload]:
        """All pages; sizes are not known."""
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix}
        while True:
            page = self._connection.call("list_multipart_uploads", "listing uploads", self.uri, **arguments)
            for item in page.get("Uploads", ()):
                key = str(item["Key"]).removeprefix(self._prefix)
                yield Upload(key=key, id=str(item["UploadId"]), size=0)
            if not page.get("IsTruncated"):
                return
            arguments["KeyMarker"] = page["NextKeyMarker"]
            arguments["UploadIdMarker"] = page["NextUploadIdMarker"]

    def abort(self, upload: Upload) -> None:
        """Until the store no longer knows it: a part that was under way may outlive the first abort."""
        arguments = {**self._object(upload.key), "UploadId": upload.id}
        for _ in range(10):
            try:
                self._upload_call("abort_multipart_upload", "aborting an upload", upload, **arguments)
                self._upload_call("list_parts", "aborting an upload", upload, MaxParts=1, **arguments)
            except UploadGone:
                return
        raise StoreUnavailable(
            "aborting an upload", where=self._where(upload.key), found="an upload that comes back"
        )
