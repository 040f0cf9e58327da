"""Whether K sub-models are there, whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from plait.errors import SourceMissing, SpecInvalid
from plait.schedules import INDEX_MARKER
from plait.uri import Uri, parse_uri
from plait_service.globs import find_folders
from plait_workers.checkpoint.model import INDEX, MAX_JSON, SINGLE
from plait_workers.storage.base import ObjectInfo, ObjectStore
from plait_workers.storage.registry import Stores

_THREADS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What a look found.

    Args:
        pattern: that was looked for.
        wanted: so many sub-models, at least.
        whole: folders that are ready.
        partial: folders that are there, but not whole.
    """

    pattern: str
    wanted: int
    whole: tuple[str, ...]
    partial: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        """Whether enough of them are whole."""
        return len(self.whole) >= self.wanted

    def __str__(self) -> str:
        said = f"{len(self.whole)} of {self.wanted} sub-models are ready at {self.pattern}"
        if not self.partial or self.is_ready:
            return said
        others = f", and {len(self.partial) - 1} more" if len(self.partial) > 1 else ""
        return f"{said}; not whole: {self.partial[0]}{others}"


def look(pattern: Uri, *, count: int, marker: str, places: Stores) -> Readiness:
    """Count the folders of a glob that are whole.

    Cost: the glob's listings, and a listing of each folder; with ``index`` and several shards, the index too.

    Args:
        pattern: of folders.
        count: of them that are wanted.
        marker: the name of a file, or ``index``; see :class:`plait.schedules.Ready`.

    Raises:
        StoreError: a store refused, or did not answer. A bucket that is not there has no sub-models.
    """
    try:
        found = find_folders(pattern, places)
    except SourceMissing:
        found = []

    def is_whole(folder: str) -> bool:
        try:
            return _is_whole(places.open(parse_uri(folder)), marker)
        except SourceMissing:  # removed meanwhile
            return False

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="plait-ready") as pool:
        whole = list(pool.map(is_whole, found))
    return Readiness(
        pattern=str(pattern),
        wanted=count,
        whole=tuple(folder for folder, ready in zip(found, whole, strict=True) if ready),
        partial=tuple(folder for folder, ready in zip(found, whole, strict=True) if not ready),
    )


def _is_whole(store: ObjectStore, marker: str) -> bool:
    if marker != INDEX_MARKER:
        return store.head(marker) is not None
    listing = {info.key: info for info in store.list(deep=False)}
    if SINGLE in listing:
        return listing[SINGLE].size > 0
    return INDEX in listing and _has_shards(store, listing)


def _has_shards(store: ObjectStore, listing: Mapping[str, ObjectInfo]) -> bool:
    """Whether the index is readable, and each shard that it names is there with bytes in it."""
    try:
        shards = set(json.loads(store.get(INDEX, limit=MAX_JSON) or b"{}")["weight_map"].values())
    except (ValueError, LookupError, AttributeError, TypeError, SpecInvalid):  # half-written, or none at all
        return False
    return bool(shards) and all(key in listing and listing[key].size > 0 for key in shards)
