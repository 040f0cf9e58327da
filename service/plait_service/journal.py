"""The journal: which parts are finished, kept beside the output, so that nothing is done twice.

Each driver puts create-only objects ``.plait/journal-EPOCH-DRIVER-N.json`` every few seconds, after it
has made the data durable. A part counts as finished if the journal and the store's own list of
parts agree. Statistics and whole-file checksums are made of these records, never by reading back.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from plait.errors import UploadGone
from plait_workers.job import Unit
from plait_workers.part_pass import PartRecord
from plait_workers.storage.base import ObjectStore, Upload

PREFIX: Final = ".plait/journal-"
_LIMIT: Final = 1 << 30


def encode_record(record: PartRecord) -> list[Any]:
    """A record as a JSON array."""
    return [
        record.unit.shard,
        record.unit.number,
        record.upload,
        record.size,
        record.etag,
        f"{record.crc64nvme:016x}",
        record.sha256,
        {str(tensor): counters for tensor, counters in record.counters.items()},
        record.reads,
    ]


def decode_record(data: Sequence[Any]) -> PartRecord:
    """The inverse of :func:`encode_record`."""
    shard, number, upload, size, etag, crc, sha256, counters, reads = data
    return PartRecord(
        unit=Unit(shard=shard, number=number),
        upload=upload,
        size=size,
        etag=etag,
        crc64nvme=int(crc, 16),
        sha256=sha256,
        counters={int(tensor): values for tensor, values in counters.items()},
        reads=[(source, file, start, stop, value) for source, file, start, stop, value in reads],
    )


class Journal:
    """Collects records from many threads. A flush that waits for a disk keeps no other from ending.

    What waits for a flush waits as the text that will be put: a fifth of the objects' memory.
    """

    def __init__(self, store: ObjectStore, *, epoch: int, driver: str) -> None:
        self._store = store
        self._name = f"{PREFIX}{epoch:06d}-{driver}"
        self._number = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._pending: list[tuple[int, str]] = []
        self._written = 0

    def add(self, record: PartRecord) -> None:
        """Note a finished part; it is on record after the next flush."""
        text = json.dumps(encode_record(record), separators=(",", ":"))
        with self._lock:
            self._pending.append((record.unit.shard, text))

    def flush(self, uploads: Sequence[Upload], *, durable: bool = True) -> None:
        """Put what was added on record, data first.

        Args:
            uploads: of each shard.
            durable: sync the data before; without it, records outlive this process but not the machine.
        """
        with self._lock:
            end = self._written + len(self._pending)
            shards = {shard for shard, _ in self._pending}
        if not shards:
            return
        if durable:
            for shard in sorted(shards):
                self._store.flush(uploads[shard])
        with self._writing:  # one object at a time, and no record in two of them
            with self._lock:
                fresh = [text for _, text in self._pending[: max(0, end - self._written)]]
            if not fresh:
                return
            data = f"[{','.join(fresh)}]"
            self._store.put(f"{self._name}-{self._number:06d}.json", data.encode(), if_absent=True)
            self._number += 1
            with self._lock:
                del self._pending[: len(fresh)]
                self._written += len(fresh)


def read_journals(store: ObjectStore) -> Iterator[PartRecord]:
    """All records, of all drivers and epochs. An object that cannot be read holds no records.

    A later epoch of one merge takes over what is left of an earlier one's uploads.
    """
    for info in store.list(PREFIX):
        data = store.get(info.key, limit=_LIMIT)
        try:
            records = [decode_record(item) for item in json.loads(data or b"[]")]
        except (ValueError, TypeError):
            continue
        yield from records


def confirmed_records(
    store: ObjectStore, records: Iterable[PartRecord], uploads: Sequence[Upload]
) -> Iterator[PartRecord]:
    """Records that the store's own lists of parts confirm.

    A shard whose upload is gone was completed by a driver that had all its records on file; whether
    it is the right one is looked at when the result is published.
    """
    listed: list[set[tuple[int, int, str]] | None] = []
    for upload in uploads:
        try:
            listed.append({(part.number, part.size, part.etag) for part in store.list_parts(upload)})
        except UploadGone:
            listed.append(None)
    for record in records:
        unit = record.unit
        if unit.shard >= len(uploads) or record.upload != uploads[unit.shard].id:
            continue
        parts = listed[unit.shard]
        if parts is None or (unit.number, record.size, record.etag) in parts:
            yield record
