"""What the null server knows of objects: files that are there to read, and sizes of what was written."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

SOURCES: Final = "models"
"""The bucket whose keys are the files below the server's folder."""
KEPT: Final = 1 << 20
"""Bytes below which the content of what is written is kept."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object: a file, bytes in memory, or no more than its size."""

    size: int
    etag: str
    modified: float
    path: Path | None = None
    data: bytes | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Upload:
    key: str
    metadata: Mapping[str, str]
    parts: dict[int, tuple[int, str]] = field(default_factory=dict)


class Objects:
    """All buckets: every name is one. Shared by threads.

    Args:
        root: the folder that is bucket ``models``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._written: dict[str, Stored] = {}
        self._uploads: dict[str, _Upload] = {}
        self._made = 0

    def find(self, key: str) -> Stored | None:
        """The object at ``bucket/key``."""
        with self._lock:
            found = self._written.get(key)
        bucket, _, name = key.partition("/")
        if found or bucket != SOURCES or ".." in name.split("/"):
            return found
        return _of_file(self._root / name)

    def put(
        self, key: str, size: int, data: bytes | None, metadata: Mapping[str, str], *, if_absent: bool = False
    ) -> Stored | None:
        """Note an object; None if there is one and there must not be."""
        with self._lock:
            if if_absent and key in self._written:
                return None
            self._made += 1
            etag = f'"{zlib.crc32(data or b""):08x}-{size}-{self._made}"'
            stored = Stored(size=size, etag=etag, modified=time.time(), data=data, metadata=metadata)
            self._written[key] = stored
            return stored

    def delete(self, key: str) -> None:
        """Forget an object; files stay."""
        with self._lock:
            self._written.pop(key, None)

    def forget(self) -> None:
        """Forget all that was written."""
        with self._lock:
            self._written.clear()
            self._uploads.clear()

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        """A new upload; its id."""
        with self._lock:
            self._made += 1
            self._uploads[f"upload-{self._made}"] = _Upload(key=key, metadata=metadata)
            return f"upload-{self._made}"

    def add_part(self, upload: str, number: int, size: int) -> str | None:
        """Note a part; its ETag, or None if there is no such upload."""
        with self._lock:
            if upload not in self._uploads:
                return None
            self._uploads[upload].parts[number] = (size, f'"{upload}-{number}"')
            return f'"{upload}-{number}"'

    def abort(self, upload: str) -> bool:
        """Whether there was one."""
        with self._lock:
            return self._uploads.pop(upload, None) is not None

    def complete(self, upload: str, *, if_absent: bool) -> Stored | int:
        """The object that an upload became, or the status that refuses it."""
        with self._lock:
            found = self._uploads.get(upload)
        if found is None:
            return 404
        stored = self.put(
            found.key,
            sum(size for size, _ in found.parts.values()),
            None,
            found.metadata,
            if_absent=if_absent,
        )
        if stored is None:
            return 412
        self.abort(upload)
        return stored

    def parts_xml(self, upload: str) -> str | None:
        """The answer to ListParts, on one page however long."""
        with self._lock:
            if upload not in self._uploads:
                return None
            parts = sorted(self._uploads[upload].parts.items())
        items = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ETag>{escape(etag)}</ETag></Part>"
            for number, (size, etag) in parts
        )
        return f"<ListPartsResult><IsTruncated>false</IsTruncated>{items}</ListPartsResult>"

    def uploads_xml(self) -> str:
        """The answer to ListMultipartUploads."""
        with self._lock:
            found = [(upload.key.partition("/")[2], name) for name, upload in self._uploads.items()]
        items = "".join(
            f"<Upload><Key>{escape(key)}</Key><UploadId>{name}</UploadId></Upload>" for key, name in found
        )
        root = "ListMultipartUploadsResult"
        return f"<{root}><IsTruncated>false</IsTruncated>{items}</{root}>"

    def list_xml(self, bucket: str, prefix: str, *, deep: bool) -> str:
        """The answer to ListObjectsV2, on one page however long."""
        items, folders = [], set()
        for key, stored in sorted(self._below(bucket, prefix, deep=deep)):
            head, slash, _ = key.removeprefix(prefix).partition("/")
            if slash and not deep:
                folders.add(f"{prefix}{head}/")
                continue
            when = datetime.fromtimestamp(stored.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            items.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified>"
                f"<ETag>{escape(stored.etag)}</ETag><Size>{stored.size}</Size></Contents>"
            )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders
        )
        return (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(items)}{common}</ListBucketResult>"
        )

    def _below(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[tuple[str, Stored]]:
        with self._lock:
            written = list(self._written.items())
        for path, stored in written:
            if path.startswith(f"{bucket}/{prefix}"):
                yield path.removeprefix(f"{bucket}/"), stored
        if bucket != SOURCES:
            return
        folder = self._root / prefix.rpartition("/")[0]
        for file in folder.rglob("*") if deep else folder.glob("*"):
            key = file.relative_to(self._root).as_posix()
            found = _of_file(file)
            if key.startswith(prefix) and found:
                yield key, found
            elif key.startswith(prefix) and file.is_dir() and not deep:
                yield f"{key}/", Stored(size=0, etag="", modified=0.0)


def _of_file(path: Path) -> Stored | None:
    try:
        status = path.stat()
    except OSError:
        return None
    if not path.is_file():
        return None
    etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}"'
    return Stored(size=status.st_size, etag=etag, modified=status.st_mtime, path=path)
