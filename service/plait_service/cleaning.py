"""What dead merges leave behind, and how it goes away: uploads that cost money, claims that nobody holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plait.errors import OutputClaimed, SpecInvalid
from plait.spec_storage import StorageSpec
from plait.uri import parse_uri
from plait_service.claim import EXPIRY, all_uploads, clean_up, youngest_heartbeat
from plait_service.existing import PRIVATE, published_fingerprint
from plait_workers.storage.base import Upload
from plait_workers.storage.registry import Stores


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """What lies at an output beside a result.

    Args:
        uri: the output.
        holder: seconds since the newest claim's holder was last heard of; None if nobody was.
        published: a result lies there.
        working: keys of working files.
        ours: uploads that a claim lists, and those below the working folder.
        unlisted: other uploads below the output: of a beginning whose answer was lost, or strangers'.
    """

    uri: str
    holder: float | None
    published: bool
    working: tuple[str, ...]
    ours: tuple[Upload, ...]
    unlisted: tuple[Upload, ...]

    @property
    def held(self) -> bool:
        """Whether somebody is at work."""
        return self.holder is not None and self.holder < EXPIRY


def find_leftovers(uri: str, storage: StorageSpec | None = None) -> Leftovers:
    """Look; nothing is changed.

    Cost: a listing of the working files and one of the uploads.
    """
    store = Stores(storage).open(parse_uri(uri))
    working = tuple(info.key for info in store.list(PRIVATE) if _is_working(info.key))
    listed = {upload.id: upload for upload in all_uploads(store, working)}
    pending = list(store.list_uploads())
    return Leftovers(
        uri=store.uri,
        holder=youngest_heartbeat(store),
        published=published_fingerprint(store) is not None,
        working=working,
        ours=tuple(upload for upload in pending if upload.id in listed or _is_probe(upload)),
        unlisted=tuple(upload for upload in pending if not (upload.id in listed or _is_probe(upload))),
    )


def _is_probe(upload: Upload) -> bool:
    """Of a driver that was killed while it looked what the store can do: nobody else writes there."""
    return upload.key.startswith(PRIVATE)


def _is_working(key: str) -> bool:
    """Not what a local store keeps of its own: metadata of objects, and uploads, which are listed apart."""
    return "/" not in key.removeprefix(PRIVATE)


def remove_leftovers(
    leftovers: Leftovers, upload_ids: Sequence[str] = (), storage: StorageSpec | None = None
) -> None:
    """Abort our uploads, and those that are named by their ids; then remove the working files.

    Idempotent. A driver that was only asleep finds no claim of its own any more, and stops.

    Raises:
        OutputClaimed: somebody is at work there.
        SpecInvalid: no upload has such an id.
    """
    store = Stores(storage).open(parse_uri(leftovers.uri))
    age = youngest_heartbeat(store)
    if age is not None and age < EXPIRY:
        raise OutputClaimed(
            "a merge is writing here",
            where=leftovers.uri,
            found=f"a driver that was heard of {max(0, age):.0f} s ago",
            hint=f"Stop it, wait {EXPIRY:.0f} s, and clean again",
        )
    named = {upload.id: upload for upload in leftovers.unlisted}
    unknown = [number for number in upload_ids if number not in named]
    if unknown:
        raise SpecInvalid("no such upload", where=leftovers.uri, found=", ".join(unknown))
    for upload in (*leftovers.ours, *(named[number] for number in upload_ids)):
        store.abort(upload)
    clean_up(store)
