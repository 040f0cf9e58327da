"""Globs of model folders, in any store that can be listed."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterator
from pathlib import Path

from plait.uri import Uri, parse_uri
from plait_workers.checkpoint.model import natural_key
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.registry import Stores


def find_folders(pattern: Uri, places: Stores) -> list[str]:
    """The folders that a glob finds, naturally sorted; ``*``, ``?`` and ``[...]`` match within a segment.

    Cost: one listing of folders for each folder above a segment with a wildcard.
    """
    if pattern.is_local:
        found = [path for path in glob.glob(str(pattern.local_path)) if Path(path).is_dir()]
        return sorted((str(parse_uri(path)) for path in found), key=natural_key)
    root = places.open(Uri(pattern.scheme, pattern.authority, ""))
    names = _below(root, "", pattern.path.split("/"))
    return sorted((str(Uri(pattern.scheme, pattern.authority, name)) for name in names), key=natural_key)


def _below(store: ObjectStore, folder: str, segments: list[str]) -> Iterator[str]:
    first, *rest = segments
    if not glob.has_magic(first):
        prefix = f"{folder}{first}/"
        if rest:
            yield from _below(store, prefix, rest)
        elif any(True for _ in store.list(prefix, deep=False)):
            yield prefix.rstrip("/")
        return
    for name in store.folders(folder):
        if fnmatch.fnmatchcase(name, first):
            if rest:
                yield from _below(store, f"{folder}{name}/", rest)
            else:
                yield f"{folder}{name}"
