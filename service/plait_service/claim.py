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
from typing import Final

from plait.errors import OutputClaimed, OutputExists, UploadGone
from plait_service.existing import PRIVATE, is_done, published_fingerprint, read_plain, remove_result
from plait_workers.storage.base import ObjectStore, Upload

EXPIRY: Final = 60.0
"""Seconds without a heartbeat after which a driver counts as gone."""
HEARTBEAT: Final = 5.0
"""Seconds between heartbeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A held output. ``done`` says that the manifest of this fingerprint is published already."""

    epoch: int
    driver: str
    fingerprint: str
    done: bool = False
    joined: bool = False


def claim_key(epoch: int) -> str:
    """Where an epoch's claim lies."""
    return f"{PRIVATE}claim-{epoch:06d}.json"


def uploads_key(epoch: int) -> str:
    """Where its list of uploads lies."""
    return f"{PRIVATE}uploads-{epoch:06d}.json"


def _alive_key(epoch: int, driver: str) -> str:
    return f"{PRIVATE}alive-{epoch:06d}-{driver}"


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
                remove_result(store, keys, keep=fingerprint)
            return claim
        if epoch and holder != fingerprint and not overwrite:
            _refuse_living(store, epoch, holder)
        claim = Claim(epoch=epoch + 1, driver=driver, fingerprint=fingerprint)
        store.probe(f"{PRIVATE}probe-{driver}")
        heartbeat(store, claim)
        data = json.dumps({"fingerprint": fingerprint, "driver": driver}).encode()
        if store.put(claim_key(claim.epoch), data, if_absent=True):
            break
        store.delete(_alive_key(claim.epoch, driver))
    _fence(store, claim.epoch)
    if overwrite:
        remove_result(store, keys)
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
    for key in (_alive_key(claim.epoch, claim.driver), claim_key(claim.epoch)):
        store.delete(key)


def _newest(store: ObjectStore) -> tuple[int, str]:
    epochs = [info.key for info in store.list(f"{PRIVATE}claim-")]
    if not epochs:
        return 0, ""
    claim = read_plain(store, epochs[-1])
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
    if store.put(claim_key(later.epoch), data, if_absent=True):
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


def _fence(store: ObjectStore, epoch: int) -> None:
    """After this no driver of an earlier epoch can complete a shard."""
    for earlier in range(1, epoch):
        store.put(uploads_key(earlier), b"{}", if_absent=True)
        for upload in uploads_of(store, earlier).values():
            store.abort(upload)


def uploads_of(store: ObjectStore, epoch: int) -> dict[str, Upload]:
    """The uploads that an epoch's drivers share, by shard."""
    listed = read_plain(store, uploads_key(epoch)) or {}
    return {key: Upload(key=key, id=item["id"], size=item["size"]) for key, item in listed.items()}


def all_uploads(store: ObjectStore, working: Sequence[str]) -> list[Upload]:
    """All uploads that any epoch lists, of these working files."""
    prefix = uploads_key(0).removesuffix("000000.json")
    epochs = [int(key[len(prefix) :].removesuffix(".json")) for key in working if key.startswith(prefix)]
    return [upload for epoch in epochs for upload in uploads_of(store, epoch).values()]


def clean_up(store: ObjectStore) -> None:
    """After the manifest is published: remove our working files, journals first, claims last."""
    working = sorted((info.key for info in store.list(PRIVATE)), key=lambda key: ("claim-" in key, key))
    # The last deletes nothing: with it goes a folder that a killed driver has left empty.
    for key in [*working, f"{PRIVATE}none"]:
        store.delete(key)
