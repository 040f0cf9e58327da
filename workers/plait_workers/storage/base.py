"""The protocol that every store speaks: objects, pinned range reads, uploads in parts.

The verbs are those of an S3 bucket, as it is the poorest of the stores that matter: an object appears
whole or not at all, nothing is renamed, the only lock is "create if absent". A local folder implements
the same verbs, so that there is one commit protocol.

Keys are relative to the store's root and use ``/``. Every method may raise the errors of
:mod:`plait.errors` below ``StoreError``, each with the object's URI; a library's own exceptions never
pass this boundary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

NEAR: Final = 64 << 10
"""Bytes between two ranges of one object that are rather read than asked around: the two are one request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """What a store says of one object.

    ``version`` changes whenever the bytes may have changed (ETag; inode, size and times locally).
    ``modified`` is in seconds by the store's own clock. ``checksums`` holds, by algorithm and in
    hexadecimal, what the store keeps of the whole object's bytes; a listing may leave it out. ``pin`` is
    what to open a reader with, where a store knows more than the version; else empty.
    """

    key: str
    size: int
    version: str
    modified: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    pin: str = ""

    @property
    def crc64nvme(self) -> str | None:
        """The checksum that was given on completion, if the store keeps one."""
        return self.checksums.get("crc64nvme")


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """An object in the making: parts may be written by anybody who knows key and id."""

    key: str
    id: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartInfo:
    """A part as the store has it."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PartLimits:
    """What a store takes as the parts of an upload; the last part may be smaller."""

    smallest: int
    largest: int
    most: int


class Scan(Protocol):
    """Reads ranges of one pinned object front to back, once; for one thread."""

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """As :meth:`RangeReader.read`; offsets grow, and lie within the ranges of the scan."""
        ...

    def close(self) -> None:
        """Let go of what was not read."""
        ...


class RangeReader(Protocol):
    """One object, pinned to one version. Threads share it."""

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """``len(scratch)`` bytes from ``offset``, all of the pinned version.

        Either ``scratch``, filled, or a view of the store's own memory that is valid until the
        reader is closed; no byte is copied in the second case.

        Raises:
            SourceChanged: the object is not the pinned version any more.
        """
        ...

    def scan(self, ranges: Sequence[tuple[int, int]]) -> Scan:
        """Begin to read ``ranges``, each (start, stop), in this order: one request a range.

        A store that answers over a network begins with the first range at once.
        """
        ...

    def check(self) -> None:
        """Raise ``SourceChanged`` if anything read since the last check may be of another version."""
        ...

    def close(self) -> None:
        """Release what the reader holds."""
        ...


class PartWriter(Protocol):
    """Writes one part front to back, without a copy between the merge and the store."""

    def reserve(self, size: int) -> memoryview:
        """A writable place for the next ``size`` bytes; at most the step it was opened with."""
        ...

    def commit(self) -> None:
        """The reserved bytes are final."""
        ...

    def finish(self, *, crc64nvme: int) -> PartInfo:
        """The part is whole: hand it to the store."""
        ...


class ObjectStore(Protocol):
    """A folder of objects: a bucket's prefix, or a directory."""

    @property
    def uri(self) -> str:
        """The root, without a trailing slash and without secrets."""
        ...

    @property
    def resolved(self) -> str:
        """The root with the commit that is read, where the store has commits; it may ask the store."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether answers come over a network: what is read is then checked, and waiting is worth hiding."""
        ...

    @property
    def part_limits(self) -> PartLimits | None:
        """What parts an upload may have; None if any."""
        ...

    def probe(self, key: str) -> None:
        """Raise ``StoreUnsuitable`` if the store cannot keep the commit protocol's promises.

        ``key`` is one that nobody uses; nothing is left there.
        """
        ...

    def now(self) -> float:
        """The store's own clock, in seconds: what ``ObjectInfo.modified`` is measured by."""
        ...

    def free_bytes(self) -> int | None:
        """How much more the store holds; None where that has no meaning."""
        ...

    def check_writable(self) -> None:
        """Raise ``AccessDenied`` if nothing can be written here, as far as that can be known."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What lies at ``key``; None if nothing does."""
        ...

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, sorted by key; metadata may be left out.

        ``deep`` false leaves out what lies in folders below the prefix's own.
        """
        ...

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The names of the folders right below ``prefix``, which is empty or ends in a slash; sorted."""
        ...

    def get(self, key: str, *, limit: int) -> bytes | None:
        """A small object whole; None if there is none. More than ``limit`` bytes is an error."""
        ...

    def open(self, key: str, version: str, *, bulk: bool = False) -> RangeReader:
        """A reader pinned to ``version``. ``bulk`` says that much of the object will be read."""
        ...

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """Write a small object at once. False if ``if_absent`` and there is one: it stays as it is."""
        ...

    def replace(self, key: str, data: bytes, *, version: str) -> bool:
        """Write over a small object if it still is of ``version``. False if it is of another, or gone.

        Of several that replace one version, one succeeds.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; none there is success."""
        ...

    def create_upload(self, key: str, *, size: int, metadata: Mapping[str, str]) -> Upload:
        """Begin an object of ``size`` bytes. Nothing appears at ``key`` until it is completed."""
        ...

    @property
    def scan_bytes(self) -> int:
        """Memory that an open scan holds beside the caller's."""
        ...

    def part_buffer_bytes(self, part_size: int, step: int) -> int:
        """Memory that an open part writer holds."""
        ...

    def begin_part(self, upload: Upload, number: int, *, offset: int, size: int, step: int) -> PartWriter:
        """Write part ``number`` (from 1), ``size`` bytes at ``offset``. A later writer replaces it."""
        ...

    def flush(self, upload: Upload) -> None:
        """After this, finished parts outlive a power failure."""
        ...

    def list_parts(self, upload: Upload) -> Sequence[PartInfo]:
        """All finished parts, by number; of one sent twice perhaps both. Raises ``UploadGone``."""
        ...

    def complete(self, upload: Upload, parts: Sequence[PartInfo], *, crc64nvme: str) -> ObjectInfo:
        """The object appears at its key, whole, unless something lies there.

        Raises ``UploadGone`` if that is so, or if it was completed or aborted before.
        """
        ...

    def list_uploads(self) -> Iterator[Upload]:
        """Uploads below the root that are neither completed nor aborted; the size may be 0, as unknown."""
        ...

    def abort(self, upload: Upload) -> None:
        """Forget an upload and its parts; one that is gone is success. After this no part can be added."""
        ...
