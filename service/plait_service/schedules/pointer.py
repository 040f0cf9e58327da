"""The ``latest`` object: small JSON that says where the newest result lies. Consumers follow one name.

::

    {"output": "s3://models/merged/2026-11-21", "job": "j-...", "schedule": "s-...",
     "due": "2026-11-21T01:30:00+00:00", "fingerprint": "...", "updated": "2026-11-21T02:11:09.127+00:00"}

It is written as a whole, over the version that was read, so that of several services and schedules none
undoes another's move. It never goes back to an older ``due``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from plait.errors import OutputExists, SpecInvalid, StoreUnavailable
from plait.uri import Uri
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.registry import Stores

_LIMIT: Final = 64 << 10
_ATTEMPTS: Final = 50


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What the object says.

    Args:
        output: the folder of the result.
        due: of the tick whose job wrote it.
        fingerprint: of the result, as its ``plait.json`` has it.
        updated: when the object was written.
    """

    output: str
    job: str
    schedule: str
    due: datetime
    fingerprint: str | None
    updated: datetime

    def to_bytes(self) -> bytes:
        """JSON, with a line break at its end."""
        data = {**vars(self), "due": self.due.isoformat(), "updated": self.updated.isoformat()}
        return (json.dumps(data, indent=1) + "\n").encode()


def move(place: Uri, pointer: Pointer, places: Stores) -> bool:
    """Have the object at ``place`` say this. False if it says something newer already. Idempotent.

    Cost: two or three small requests; that again for each move of somebody else in between.

    Raises:
        OutputExists: something else lies there; it is left alone.
        StoreError: the store refused, or did not answer.
    """
    folder, _, key = place.path.rpartition("/")
    store = places.open(Uri(place.scheme, place.authority, folder or ("/" if place.is_local else "")))
    data = pointer.to_bytes()
    for _ in range(_ATTEMPTS):
        info = store.head(key)
        if info is None:
            if store.put(key, data, if_absent=True):
                return True
            continue
        # Read after the version was: what is newer than that is refused when it is replaced.
        due, job = _read(store, key, place)
        if job == pointer.job:
            return True
        if due is not None and due > pointer.due:
            return False
        if due is not None and store.replace(key, data, version=info.version):
            return True
    raise StoreUnavailable(
        "a pointer that others move all the time", where=str(place), hint="Try again later"
    )


def _read(store: ObjectStore, key: str, place: Uri) -> tuple[datetime | None, str | None]:
    """Whose it is; None if it is gone."""
    try:
        data = store.get(key, limit=_LIMIT)
        if data is None:
            return None, None
        said = json.loads(data)
        due = datetime.fromisoformat(said["due"])
        if due.tzinfo is None:
            raise ValueError("no time zone")
        return due, str(said["job"])
    except (ValueError, LookupError, TypeError, SpecInvalid):
        raise OutputExists(
            "something lies where the newest result is to be named",
            where=str(place),
            expected="nothing, or what a schedule wrote there",
            hint="Remove it, or give `latest` another place",
        ) from None
