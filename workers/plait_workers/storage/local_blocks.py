"""A file of which whole blocks are written past the page cache."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Final

from plait_workers.storage.local_parts import UploadFile
from plait_workers.storage.mounts import file_system_of

BLOCK: Final = max(4096, mmap.PAGESIZE)
"""Offsets, sizes and addresses of what is written past the page cache are multiples of it, and of a page: one
that was written both ways at once would be lost."""
_SYSTEMS: Final = frozenset({"ext4", "xfs", "btrfs", "f2fs", "overlay"})


class BlockFile(UploadFile):
    """An upload's data, open once more for as long as a part is written: files are many, descriptors few.

    Args:
        path: of the data.
        cached: the same, for what the file system does not take so.
    """

    def __init__(self, path: Path, cached: UploadFile) -> None:
        super().__init__(path, os.O_WRONLY | os.O_DIRECT)
        self._cached = cached

    def write(self, data: memoryview, offset: int) -> None:
        """All of it: whole blocks at a whole block."""
        done = 0
        try:
            while done < len(data) and done % BLOCK == 0:
                done += os.pwrite(self.descriptor, data[done:], offset + done)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a device of larger blocks, say
                raise
        self._cached.write(data[done:], offset + done)


def open_blocks(root: Path, path: Path, cached: UploadFile) -> BlockFile | None:
    """None where nothing is written past the page cache. ``root`` is the folder of the store."""
    if not hasattr(os, "O_DIRECT") or file_system_of(root) not in _SYSTEMS:
        return None
    try:
        return BlockFile(path, cached)
    except OSError as error:
        if error.errno == errno.EINVAL:  # not on this one after all
            return None
        raise
