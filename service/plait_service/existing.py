"""What lies at an output: a result, foreign files, or what a merge in the making has put there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from plait.errors import OutputExists
from plait_workers.checkpoint.model import CONFIG, INDEX, is_plain_name
from plait_workers.storage.base import ObjectInfo, ObjectStore

MANIFEST: Final = "plait.json"
PRIVATE: Final = ".plait/"
FINGERPRINT: Final = "plait-fingerprint"
"""The metadata key under which every object of a result carries its fingerprint."""
_LIMIT: Final = 256 << 20


def read_plain(store: ObjectStore, key: str) -> Any:
    """A JSON object of ours; None if there is none, an empty one if it cannot be read."""
    data = store.get(key, limit=_LIMIT)
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return {}


def published_fingerprint(store: ObjectStore) -> str | None:
    """The fingerprint of the manifest that lies at an output; "" for a manifest that has none."""
    manifest = read_plain(store, MANIFEST)
    if manifest is None:
        return None
    return str(manifest.get("fingerprint", "")) if isinstance(manifest, dict) else ""


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


def remove_result(store: ObjectStore, keys: Sequence[str], *, keep: str | None = None) -> None:
    """First what makes a model visible, then the rest: for a while there is none, never a mixed one.

    Objects of the fingerprint ``keep`` stay.
    """
    for key in dict.fromkeys((MANIFEST, CONFIG, INDEX, *keys, *_old_files(store), *_tensor_files(store))):
        info = store.head(key)
        if info is not None and (keep is None or info.metadata.get(FINGERPRINT) != keep):
            store.delete(key)


def _old_files(store: ObjectStore) -> list[str]:
    """The small files of the result that lies there."""
    manifest = read_plain(store, MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    return [name for name in files if is_plain_name(name)] if isinstance(files, dict) else []


def _tensor_files(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(deep=False) if info.key.endswith(".safetensors")]


def is_ours(info: ObjectInfo | None, fingerprint: str, size: int) -> bool:
    """Whether an object is of this merge."""
    return info is not None and info.size == size and info.metadata.get(FINGERPRINT) == fingerprint
