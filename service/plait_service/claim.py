"""Who merges into an output: claims by epoch, heartbeats, and the fence.

::

    .plait/claim-000001.json        create-only: the fingerprint that holds the output
    .plait/uploads-000001.json      create-only: the upload ids that all drivers of the epoch share
    .plait/alive-000001-DRIVER      rewritten every few seconds; its age tells who is gone

A driver of the same fingerprint joins, as its work is idempotent. Another one is told who holds the
output; it takes over, as the next epoch, when no heartbeat is younger than ``EXPIRY`` by the store's
own clock, or with ``--overwrite``. Whoever takes over aborts every upload of the epochs before, and
puts an empty list where an epoch has none yet: a driver that wakes up after that can complete nothing.
That, and not the heartbeat, is the fence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from plait.errors import CommitUnknown, OutputClaimed, OutputExists, UploadGone
from plait_workers.checkpoint.model import CONFIG, INDEX, is_plain_name
from plait_workers.job import OutShard
from plait_workers.storage.base import ObjectInfo, ObjectStore, Upload

MANIFEST: Final = "plait.json"
PRIVATE: Final = ".plait/"
EXPIRY: Final = 60.0
"""Seconds without a heartbeat after which a driver counts as gone."""
HEARTBEAT: Final = 5.0
"""Seconds between heartbeats."""
FINGERPRINT: Final = "plait-fingerprint"
"""The metadata key under which every object of a result carries its fingerprint."""
_LIMIT: Final = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A held output. ``done`` says that the manifest of this fingerprint is published already."""

    epoch: int
    driver: str
    fingerprint: str
    done: bool = False
    joined: bool = False


def _claim_key(epoch: int) -> str:
    return f"{PRIVATE}claim-{epoch:06d}.json"


def _uploads_key(epoch: int) -> str:
    return f"{PRIVATE}uploads-{epoch:06d}.json"


def _alive_key(epoch: int, driver: str) -> str:
    return f"{PRIVATE}alive-{epoch:06d}-{driver}"


def _json(store: ObjectStore, key: str) -> Any:
    data = store.get(key, limit=_LIMIT)
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return {}


def published_fingerprint(store: ObjectStore) -> str | None:
    """The fingerprint of the manifest that lies at an output; "" for a manifest that has none."""
    manifest = _json(store, MANIFEST)
    if manifest is None:
        return None
    return str(manifest.get("fingerprint", "")) if isinstance(manifest, dict) else ""


def take_claim(
    store: ObjectStore, *, fingerprint: str, driver: str, keys: Sequence[str], overwrite: bool
) -> Claim:
    """Claim an output, or join those who hold it for the same fingerprint.

    Args:
        store: rooted at the output.
        fingerprint: of the job.
        driver: a name that no other driver has.
        keys: what the merge will write; something foreign there is an error.
        overwrite: take the output whoever holds it, and whatever lies there.

    Raises:
        OutputExists: a result or foreign files lie there, and ``overwrite`` is false.
        OutputClaimed: another fingerprint holds it and is alive.
    """
    done = Claim(epoch=0, driver=driver, fingerprint=fingerprint, done=True)
    while True:
        if not overwrite and is_done(store, fingerprint, keys):
            return done
        epoch, holder = _newest(store)
        if epoch and holder == fingerprint and published_fingerprint(store) is None:
            claim = Claim(epoch=epoch, driver=driver, fingerprint=fingerprint, joined=True)
            heartbeat(store, claim)
            if overwrite:  # whoever began this may have been killed before all of the old result was gone
                _remove_result(store, keys, keep=fingerprint)
            return claim
        if epoch and holder != fingerprint and not overwrite:
            _refuse_living(store, epoch, holder)
        claim = Claim(epoch=epoch + 1, driver=driver, fingerprint=fingerprint)
        store.probe(f"{PRIVATE}probe-{driver}")
        heartbeat(store, claim)
        data = json.dumps({"fingerprint": fingerprint, "driver": driver}).encode()
        if store.put(_claim_key(claim.epoch), data, if_absent=True):
            break
        store.delete(_alive_key(claim.epoch, driver))
    _fence(store, claim.epoch)
    if overwrite:
        _remove_result(store, keys)
        return claim
    try:  # somebody may have published, and tidied up, after the first look and before the claim
        if not is_done(store, fingerprint, keys):
            return claim
    except OutputExists:
        _drop(store, claim)
        raise
    _drop(store, claim)
    return done


def _drop(store: ObjectStore, claim: Claim) -> None:
    for key in (_alive_key(claim.epoch, claim.driver), _claim_key(claim.epoch)):
        store.delete(key)


def _newest(store: ObjectStore) -> tuple[int, str]:
    epochs = [info.key for info in store.list(f"{PRIVATE}claim-")]
    if not epochs:
        return 0, ""
    claim = _json(store, epochs[-1])
    number = int(epochs[-1].removeprefix(f"{PRIVATE}claim-").removesuffix(".json"))
    return number, str((claim or {}).get("fingerprint", ""))


def check_claim(store: ObjectStore, claim: Claim) -> None:
    """Raise unless this claim is the newest.

    Raises:
        OutputClaimed: another merge holds the output, or nobody does: whoever published ended it.
        UploadGone: a driver of this merge has begun a later epoch, as uploads were lost.
    """
    if follow(store, claim) is not claim:
        raise UploadGone("another driver of this merge began its uploads anew", where=store.uri)


def follow(store: ObjectStore, claim: Claim) -> Claim:
    """This claim, or the later one of the same merge.

    Raises:
        OutputClaimed: as :func:`check_claim`.
    """
    epoch, holder = _newest(store)
    if (epoch, holder) == (claim.epoch, claim.fingerprint):
        return claim
    if epoch > claim.epoch and holder == claim.fingerprint:
        later = replace(claim, epoch=epoch, joined=True)
        heartbeat(store, later)
        return later
    raise OutputClaimed(
        "another merge took over the output",
        where=store.uri,
        found=f"fingerprint {holder[:12]}, epoch {epoch}" if epoch else "no claim any more",
    )


def begin_anew(store: ObjectStore, claim: Claim) -> Claim:
    """The next epoch of the same merge, for when somebody aborted an upload of this one.

    What is left of this epoch's uploads is taken along by :func:`share_uploads`.
    """
    later = replace(claim, epoch=claim.epoch + 1, joined=False)
    heartbeat(store, later)
    data = json.dumps({"fingerprint": later.fingerprint, "driver": later.driver}).encode()
    if store.put(_claim_key(later.epoch), data, if_absent=True):
        return later
    store.delete(_alive_key(later.epoch, later.driver))
    return follow(store, claim)


def heartbeat(store: ObjectStore, claim: Claim) -> None:
    """Say that this driver is alive."""
    store.put(_alive_key(claim.epoch, claim.driver), b"")


def release(store: ObjectStore, claim: Claim) -> None:
    """This driver stops; its parts stay, and others need not wait for its heartbeat to expire."""
    if claim.epoch:
        store.delete(_alive_key(claim.epoch, claim.driver))


def youngest_heartbeat(store: ObjectStore) -> float | None:
    """Seconds since a driver of the newest claim was last heard of; None if none was."""
    epoch, _ = _newest(store)
    found = _heartbeats(store, epoch) if epoch else []
    return min((age for age, _ in found), default=None)


def _heartbeats(store: ObjectStore, epoch: int) -> list[tuple[float, str]]:
    """(age in seconds, driver)."""
    infos = list(store.list(_alive_key(epoch, "")))
    now = store.now() if infos else 0.0
    return [(now - info.modified, info.key.rpartition("-")[2]) for info in infos]


def _refuse_living(store: ObjectStore, epoch: int, holder: str) -> None:
    for age, driver in _heartbeats(store, epoch):
        if age < EXPIRY:
            raise OutputClaimed(
                "another merge is writing here",
                where=store.uri,
                found=f"fingerprint {holder[:12]}, driver {driver}, last heard of {max(0, age):.0f} s ago",
                hint=f"Wait for it, or {EXPIRY:.0f} s after it stopped, or take the output with --overwrite",
            )


def is_done(store: ObjectStore, fingerprint: str, keys: Sequence[str]) -> bool:
    """Whether this result is published; raises ``OutputExists`` if something else lies there."""
    published = published_fingerprint(store)
    if published == fingerprint:
        return True
    try:
        _refuse_existing(store, fingerprint, keys, published)
    except OutputExists:
        if published_fingerprint(store) == fingerprint:  # published, and tidied up, while we looked
            return True
        raise
    return False


def _refuse_existing(
    store: ObjectStore, fingerprint: str, keys: Sequence[str], published: str | None
) -> None:
    """Raise ``OutputExists`` if another result, or a foreign file, lies where ours would go."""
    hint = "Choose another output, or replace this one with --overwrite"
    if published is not None:
        raise OutputExists(
            "the output holds another result",
            where=f"{store.uri}/{MANIFEST}",
            found=f"fingerprint {published[:12]}",
            hint=hint,
        )
    for key in dict.fromkeys((CONFIG, INDEX, *keys, *_tensor_files(store))):
        info = store.head(key)
        if info is not None and info.metadata.get(FINGERPRINT) != fingerprint:
            raise OutputExists("the output is not empty", where=f"{store.uri}/{key}", hint=hint)


def _fence(store: ObjectStore, epoch: int) -> None:
    """After this no driver of an earlier epoch can complete a shard."""
    for earlier in range(1, epoch):
        store.put(_uploads_key(earlier), b"{}", if_absent=True)
        for upload in _shared_uploads(store, earlier).values():
            store.abort(upload)


def _remove_result(store: ObjectStore, keys: Sequence[str], *, keep: str | None = None) -> None:
    """First what makes a model visible, then the rest: for a while there is none, never a mixed one.

    Objects of the fingerprint ``keep`` stay.
    """
    for key in dict.fromkeys((MANIFEST, CONFIG, INDEX, *keys, *_old_files(store), *_tensor_files(store))):
        info = store.head(key)
        if info is not None and (keep is None or info.metadata.get(FINGERPRINT) != keep):
            store.delete(key)


def _old_files(store: ObjectStore) -> list[str]:
    """The small files of the result that lies there."""
    manifest = _json(store, MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    return [name for name in files if is_plain_name(name)] if isinstance(files, dict) else []


def _tensor_files(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(deep=False) if info.key.endswith(".safetensors")]


def shared_uploads(store: ObjectStore, working: Sequence[str]) -> list[Upload]:
    """All uploads that any epoch lists, of these working files."""
    prefix = _uploads_key(0).removesuffix("000000.json")
    epochs = [int(key[len(prefix) :].removesuffix(".json")) for key in working if key.startswith(prefix)]
    return [upload for epoch in epochs for upload in _shared_uploads(store, epoch).values()]


def _shared_uploads(store: ObjectStore, epoch: int) -> dict[str, Upload]:
    listed = _json(store, _uploads_key(epoch)) or {}
    return {key: Upload(key=key, id=item["id"], size=item["size"]) for key, item in listed.items()}


def is_usable(store: ObjectStore, claim: Claim, upload: Upload) -> bool:
    """Whether a shard is in the making, or has been made."""
    try:
        store.list_parts(upload)
    except UploadGone:
        return is_ours(store.head(upload.key), claim, upload.size)
    return True


def is_ours(info: ObjectInfo | None, claim: Claim, size: int) -> bool:
    """Whether an object is of this merge."""
    return info is not None and info.size == size and info.metadata.get(FINGERPRINT) == claim.fingerprint


def _inherited(store: ObjectStore, claim: Claim) -> dict[str, Upload]:
    """What can be used of the uploads of the epoch before, if that was of the same merge."""
    before = _json(store, _claim_key(claim.epoch - 1)) if claim.epoch > 1 else None
    if not isinstance(before, dict) or before.get("fingerprint") != claim.fingerprint:
        return {}
    uploads = _shared_uploads(store, claim.epoch - 1)
    return {key: upload for key, upload in uploads.items() if is_usable(store, claim, upload)}


def share_uploads(store: ObjectStore, claim: Claim, shards: Sequence[OutShard]) -> list[Upload]:
    """The uploads of each shard that all drivers of this epoch use: one driver's win, the others' go.

    Raises:
        OutputClaimed: a later epoch fenced this one off.
    """
    if store.head(_uploads_key(claim.epoch)) is None:
        metadata = {FINGERPRINT: claim.fingerprint}
        own: list[Upload] = []
        listed = won = False
        try:
            uploads = _inherited(store, claim)
            for shard in shards:
                if shard.key not in uploads:
                    own.append(store.create_upload(shard.key, size=shard.size, metadata=metadata))
                    uploads[shard.key] = own[-1]
            data = {key: {"id": upload.id, "size": upload.size} for key, upload in uploads.items()}
            listed = store.put(_uploads_key(claim.epoch), json.dumps(data).encode(), if_absent=True)
            if listed:  # nobody fences off an epoch that is over and tidied up: look once more
                check_claim(store, claim)
                won = True
        finally:
            if not won:
                if listed:
                    store.delete(_uploads_key(claim.epoch))
                for upload in own:
                    store.abort(upload)
    shared = _shared_uploads(store, claim.epoch)
    if not shared:
        check_claim(store, claim)
        raise CommitUnknown(
            "the list of uploads disappeared", where=f"{store.uri}/{_uploads_key(claim.epoch)}"
        )
    return [shared[shard.key] for shard in shards]


def clean_up(store: ObjectStore) -> None:
    """After the manifest is published: remove our working files, journals first, claims last."""
    working = sorted((info.key for info in store.list(PRIVATE)), key=lambda key: ("claim-" in key, key))
    # The last deletes nothing: with it goes a folder that a killed driver has left empty.
    for key in [*working, f"{PRIVATE}none"]:
        store.delete(key)
