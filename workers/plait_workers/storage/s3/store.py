"""A prefix of a bucket as a store: what ``objects`` does, and multipart uploads, which make large objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from plait.errors import (
    SourceChanged,
    SourceMissing,
    StoreRefused,
    StoreUnavailable,
    StoreUnsuitable,
    UploadGone,
)
from plait.spec_storage import StoreOptions
from plait_workers.checksums import ALGORITHMS, DEFAULT
from plait_workers.storage.base import ObjectInfo, PartInfo, PartLimits, PartWriter, Upload
from plait_workers.storage.s3.checksums import to_base64
from plait_workers.storage.s3.connection import Connection
from plait_workers.storage.s3.objects import S3Objects
from plait_workers.storage.s3.parts import S3PartWriter

LIMITS: Final = PartLimits(smallest=5 << 20, largest=5 << 30, most=10_000)
_PRIVATE = ".plait/"


class S3Store(S3Objects):
    """Objects below ``s3://bucket/prefix``, and uploads, to which any process may add parts that knows an id.

    Shared by threads; pickled without its connection.
    """

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self._bucket, self._prefix.rstrip("/"), self._connection.options))

    @property
    def part_limits(self) -> PartLimits | None:
        """S3's own."""
        return LIMITS

    def check_writable(self) -> None:
        """Begin an upload and abort it: nothing else tells without leaving something."""
        self.abort(self.create_upload(f"{_PRIVATE}permission", size=0, metadata={}))

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
            if not conditional:
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


def _rebuild(bucket: str, prefix: str, options: StoreOptions) -> S3Store:
    return S3Store(bucket, prefix, Connection(options))
