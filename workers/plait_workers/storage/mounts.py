"""Which file system a path lies on."""

from __future__ import annotations

import functools
import os
import stat
from contextlib import suppress
from pathlib import Path

import psutil


def file_system_of(path: Path) -> str | None:
    """Type of the file system of what exists at a path, such as ``ext4``; None if it cannot be told."""
    with suppress(OSError):
        found = os.stat(path)
        whole = path.resolve()
        return _type_of(found.st_dev, str(whole if stat.S_ISDIR(found.st_mode) else whole.parent))
    return None


@functools.lru_cache(maxsize=256)
def _type_of(_device: int, folder: str) -> str | None:
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    while folder not in mounts and folder != "/":
        folder = os.path.dirname(folder)
    return mounts.get(folder)
