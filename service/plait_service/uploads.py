"""Uploads that all drivers of an epoch share: their ids are put where everybody finds them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from plait.errors import CommitUnknown, UploadGone
from plait_service.claim import Claim, check_claim, claim_key, uploads_key, uploads_of
from plait_service.existing import FINGERPRINT, is_ours, read_plain
from plait_workers.job import OutShard
from plait_workers.storage.base import ObjectStore, Upload


def is_usable(store: ObjectStore, claim: Claim, upload: Upload) -> bool:
    """Whether a shard is in the making, or has been made."""
    try:
        store.list_parts(upload)
    except UploadGone:
        return is_ours(store.head(upload.key), claim.fingerprint, upload.size)
    return True


def _inherited(store: ObjectStore, claim: Claim) -> dict[str, Upload]:
    """What can be used of the uploads of the epoch before, if that was of the same merge."""
    before = read_plain(store, claim_key(claim.epoch - 1)) if claim.epoch > 1 else None
    if not isinstance(before, dict) or before.get("fingerprint") != claim.fingerprint:
        return {}
    uploads = uploads_of(store, claim.epoch - 1)
    return {key: upload for key, upload in uploads.items() if is_usable(store, claim, upload)}


def share_uploads(store: ObjectStore, claim: Claim, shards: Sequence[OutShard]) -> list[Upload]:
    """The uploads of each shard that all drivers of this epoch use: one driver's win, the others' go.

    Raises:
        OutputClaimed: a later epoch fenced this one off.
    """
    if store.head(uploads_key(claim.epoch)) is None:
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
            listed = store.put(uploads_key(claim.epoch), json.dumps(data).encode(), if_absent=True)
            if listed:  # nobody fences off an epoch that is over and tidied up: look once more
                check_claim(store, claim)
                won = True
        finally:
            if not won:
                if listed:
                    store.delete(uploads_key(claim.epoch))
                for upload in own:
                    store.abort(upload)
    shared = uploads_of(store, claim.epoch)
    if not shared:
        check_claim(store, claim)
        raise CommitUnknown(
            "the list of uploads disappeared", where=f"{store.uri}/{uploads_key(claim.epoch)}"
        )
    return [shared[shard.key] for shard in shards]
