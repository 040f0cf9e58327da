"""The end of a merge: shards, small files, index, config.json, and last the manifest.

Readers that know nothing of Plait need config.json or the index to see a model; a reader that waits for
``plait.json`` never sees half of one. Before the manifest is written every object is looked at. A step
whose answer is lost is looked up, not repeated blindly: the same fingerprint, size and checksum is
success; anything else is ``commit-unknown``, and then nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from awscrt.checksums import combine_crc64nvme

from plait.errors import CommitUnknown, StoreRefused, UploadGone
from plait_service.claim import Claim, check_claim
from plait_service.existing import FINGERPRINT, MANIFEST, is_ours, published_fingerprint
from plait_service.finished_parts import FinishedPart, FinishedParts
from plait_workers.checkpoint.model import CONFIG, INDEX
from plait_workers.job import Job
from plait_workers.storage.base import ObjectInfo, ObjectStore, PartInfo, Upload

Step = Callable[[str], None]
"""Told the name of each step before it is done; tests kill the driver there."""


def shard_crc(parts: Sequence[FinishedPart]) -> int:
    """The CRC64NVME of a whole shard, joined from its parts' in order."""
    crc = 0
    for part in parts:
        crc = combine_crc64nvme(crc, part.crc64nvme, part.size)
    return crc


def publish(
    *,
    store: ObjectStore,
    job: Job,
    claim: Claim,
    uploads: Sequence[Upload],
    finished: FinishedParts,
    files: Mapping[str, bytes],
    manifest: bytes,
    step: Step,
) -> None:
    """Make the result appear, in order; idempotent, and safe beside other drivers of the same merge.

    Args:
        files: small files by name, the index and config.json among them.
        manifest: the bytes of plait.json.

    Raises:
        OutputClaimed: another merge took over.
        CommitUnknown: an object is neither ours nor absent.
        UploadGone: somebody aborted an upload; its shard must be made again.
    """

    def begin(name: str) -> None:
        """A driver that slept must not wake up into somebody else's output."""
        step(name)
        check_claim(store, claim)

    for index, shard in enumerate(job.shards):
        begin(f"complete {shard.key}")
        _complete(store, claim, uploads[index], finished.of_shard(index))
    last = [key for key in (INDEX, CONFIG) if key in files]
    for key in [*(key for key in sorted(files) if key not in last), *last]:
        begin(f"put {key}")
        _put(store, claim, key, files[key])
    begin("look")
    _look(store, claim, {shard.key: shard.size for shard in job.shards}, files)
    begin(f"put {MANIFEST}")
    if store.put(MANIFEST, manifest, if_absent=True, metadata={FINGERPRINT: claim.fingerprint}):
        return
    if published_fingerprint(store) != claim.fingerprint:
        raise CommitUnknown("another result was published meanwhile", where=f"{store.uri}/{MANIFEST}")


def _complete(store: ObjectStore, claim: Claim, upload: Upload, finished: Sequence[FinishedPart]) -> None:
    crc = f"{shard_crc(finished):016x}"
    try:
        try:
            store.complete(upload, _listed(store, upload, finished), crc64nvme=crc)
        except StoreRefused:  # InvalidPart: a part was sent again since it was listed
            store.complete(upload, _listed(store, upload, finished), crc64nvme=crc)
    except UploadGone:
        info = store.head(upload.key)
        if is_ours(info, claim.fingerprint, upload.size) and info and info.crc64nvme in (crc, None):
            return
        check_claim(store, claim)
        if info is None:  # aborted by somebody: it is made again
            raise
        raise CommitUnknown(
            "a shard is neither in the making nor the one that was made",
            where=f"{store.uri}/{upload.key}",
            expected=f"{upload.size} bytes, fingerprint {claim.fingerprint[:12]}",
            found=_describe(info),
            hint="Nothing was deleted. Run the merge again with --overwrite to start anew",
        ) from None


def _listed(store: ObjectStore, upload: Upload, finished: Sequence[FinishedPart]) -> list[PartInfo]:
    """The parts as the store has them: of those sent more than once the one on record, if it is there.

    Under SSE-KMS two sendings of the same bytes have two ETags, and the store may keep either or both.
    """
    listed: dict[int, list[PartInfo]] = {}
    for part in store.list_parts(upload):
        listed.setdefault(part.number, []).append(part)
    parts: list[PartInfo] = []
    for known in finished:
        sent = [part for part in listed.get(known.number, ()) if part.size == known.size]
        if not sent:
            raise UploadGone("a finished part is gone", where=f"{store.uri}/{upload.key}")
        parts.append(next((part for part in sent if part.etag == known.etag), sent[-1]))
    return parts


def _put(store: ObjectStore, claim: Claim, key: str, data: bytes) -> None:
    if store.put(key, data, if_absent=True, metadata={FINGERPRINT: claim.fingerprint}):
        return
    info = store.head(key)
    if not is_ours(info, claim.fingerprint, len(data)):
        check_claim(store, claim)
        raise CommitUnknown(
            "a file of somebody else lies where ours would go",
            where=f"{store.uri}/{key}",
            found=_describe(info),
            hint="Nothing was deleted. Run the merge again with --overwrite to replace it",
        )


def _look(store: ObjectStore, claim: Claim, shards: Mapping[str, int], files: Mapping[str, bytes]) -> None:
    for key, size in {**shards, **{key: len(data) for key, data in files.items()}}.items():
        info = store.head(key)
        if not is_ours(info, claim.fingerprint, size):
            raise CommitUnknown(
                "an object of the result changed before it was published",
                where=f"{store.uri}/{key}",
                expected=f"{size} bytes, fingerprint {claim.fingerprint[:12]}",
                found=_describe(info),
            )


def _describe(info: ObjectInfo | None) -> str:
    if info is None:
        return "nothing"
    return f"{info.size} bytes, fingerprint {info.metadata.get(FINGERPRINT, 'none')[:12]}"
