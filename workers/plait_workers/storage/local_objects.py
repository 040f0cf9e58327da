"""Files of a local folder as objects: looking, listing, reading, small ones whole. See ``local``."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from plait.errors import AccessDenied, InternalError, SpecInvalid
from plait_workers.storage.base import ObjectInfo, RangeReader
from plait_workers.storage.errors import map_os_error, os_errors
from plait_workers.storage.local_io import LocalReader, version_of

PRIVATE = ".plait"
_FOLDERS = ("tmp", "objects", "uploads")
ATTEMPTS = 8
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalObjects:
    """The objects of a folder; what a store does beside uploads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._private = root / PRIVATE

    @property
    def uri(self) -> str:
        """The folder's path."""
        return str(self._root)

    @property
    def resolved(self) -> str:
        """The folder's path."""
        return self.uri

    @property
    def scan_bytes(self) -> int:
        """None: a map, or straight into the caller's."""
        return 0

    @property
    def is_remote(self) -> bool:
        """No: what is read is compared by the file's status."""
        return False

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise SpecInvalid("a name leads out of its folder", where=self.uri, found=repr(key))
        return self._root / key

    def _where(self, key: str) -> str:
        return str(self._root / key)

    def now(self) -> float:
        """The file system's clock, which on a network mount is not this machine's."""
        with os_errors("asking the time", self.uri):
            probe = self._temporary(b"")
            try:
                return probe.stat().st_mtime
            finally:
                probe.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Free bytes on the file system of the folder, or of its nearest parent that exists."""
        with os_errors("asking for free space", self.uri):
            return shutil.disk_usage(self._nearest_parent()).free

    def check_writable(self) -> None:
        """The folder, or the parent that it would be made in, admits files."""
        parent = self._nearest_parent()
        if not parent.is_dir():
            raise AccessDenied(
                "the output is no folder", where=str(parent), expected="a folder", found="a file"
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise AccessDenied(
                "no permission to write", where=str(parent), hint="Check the owner and the mode"
            )

    def _nearest_parent(self) -> Path:
        folder = self._root
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return folder

    def head(self, key: str) -> ObjectInfo | None:
        """Size, version and metadata of a file; None for none, and for a folder."""
        path = self._path(key)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise map_os_error(error, "looking at a file", self._where(key)) from error
        if not os.path.isfile(path):
            return None
        kept = self._metadata(key, status)
        return ObjectInfo(
            key=key,
            size=status.st_size,
            version=version_of(status),
            modified=status.st_mtime,
            metadata=kept.get("metadata", {}),
            checksums={"crc64nvme": kept["crc64nvme"]} if kept.get("crc64nvme") else {},
        )

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[ObjectInfo]:
        """Files below the folder, sorted by key; our own working files only if asked for by name."""
        self._path(prefix)
        top, _, _ = prefix.rpartition("/")
        keys = []

        def on_error(error: OSError) -> None:
            # Nothing there is an empty listing; what is closed to us further down is not ours to list.
            if error.errno in (errno.EACCES, errno.EIO, errno.ESTALE) and Path(error.filename) == start:
                raise map_os_error(error, "listing a folder", str(start)) from error

        start = self._root / top
        for folder, folders, files in os.walk(start, onerror=on_error):
            relative = os.path.relpath(folder, self._root)
            if relative == "." and not prefix.startswith(PRIVATE):
                folders[:] = [name for name in folders if name != PRIVATE]
            keys += [name if relative == "." else f"{relative}/{name}" for name in files]
            if not deep:
                folders.clear()
        for key in sorted(keys):
            info = self.head(key) if key.startswith(prefix) else None
            if info is not None:
                yield info

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Folders right below a prefix, links to folders among them."""
        start = self._path(prefix)
        with os_errors("listing a folder", str(start)):
            names = os.listdir(start) if start.is_dir() else []
        yield from sorted(name for name in names if (start / name).is_dir() and name != PRIVATE)

    def get(self, key: str, *, limit: int) -> bytes | None:
        """A small file whole."""
        try:
            with open(self._path(key), "rb") as file:
                data = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise map_os_error(error, "reading a file", self._where(key)) from error
        if len(data) > limit:
            raise SpecInvalid(
                "a file is too large", where=self._where(key), expected=f"at most {limit} bytes"
            )
        return data

    def open(self, key: str, version: str, *, bulk: bool = False) -> RangeReader:
        """A reader that holds the file open and compares its status; in bulk, by a memory map."""
        path = self._path(key)
        if bulk:
            from plait_workers.storage.mapped import MappedReader, can_map

            if can_map(path):
                return MappedReader(path, version)
        return LocalReader(path, version)

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """Write, sync, then link or rename onto the name: readers see all of it or nothing."""
        path = self._path(key)
        with os_errors("writing a file", self._where(key)):
            for attempt in range(ATTEMPTS):
                temporary = self._temporary(data)
                try:
                    if metadata:
                        self._keep_metadata(key, temporary.stat(), metadata, None)
                    else:  # the inode may have been that of an earlier file of this name
                        self._metadata_path(key, temporary.stat().st_ino).unlink(missing_ok=True)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _publish(temporary, path, if_absent=if_absent)
                    sync_folder(path.parent)
                    return True
                except FileExistsError:
                    if not if_absent or not path.parent.is_dir():  # a file where a folder should be
                        raise
                    self._metadata_path(key, temporary.stat().st_ino).unlink(missing_ok=True)
                    return False
                except FileNotFoundError:  # another driver, done with the same merge, tidied up
                    if attempt == ATTEMPTS - 1:
                        raise
                finally:
                    temporary.unlink(missing_ok=True)
        raise AssertionError("unreachable")

    def replace(self, key: str, data: bytes, *, version: str) -> bool:
        """Compare and rename while the folder is locked against others that replace, not that put."""
        path = self._path(key)
        with os_errors("replacing a file", self._where(key)):
            try:
                folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                return False
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                info = self.head(key)
                return info is not None and info.version == version and self.put(key, data)
            finally:
                os.close(folder)

    def delete(self, key: str) -> None:
        """Remove a file, and folders of ours that it leaves empty."""
        path = self._path(key)
        with os_errors("removing a file", self._where(key)):
            with suppress(FileNotFoundError, NotADirectoryError):
                inode = path.lstat().st_ino
                path.unlink()
                self._metadata_path(key, inode).unlink(missing_ok=True)
            if key.startswith(f"{PRIVATE}/"):
                # What is in use is not empty, or is made again. An upload's folder is left empty by a kill.
                for folder in (
                    *self._private.glob("uploads/*"),
                    *(self._private / name for name in _FOLDERS),
                ):
                    with suppress(OSError):
                        folder.rmdir()
                self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except FileNotFoundError:  # somebody else was faster
                pass
            except OSError:
                return
            folder = folder.parent

    def _temporary(self, data: bytes) -> Path:
        folder = self._private / "tmp"
        path = folder / uuid.uuid4().hex
        for _ in range(ATTEMPTS):  # another driver may remove the folder when it is done
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with open(path, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fdatasync(file.fileno())
                return path
            except FileNotFoundError:
                continue
            except OSError:
                path.unlink(missing_ok=True)
                raise
        raise InternalError("a working folder disappears as fast as it is made", where=str(folder))

    def _metadata_path(self, key: str, inode: int) -> Path:
        return self._private / "objects" / f"{key.replace('/', '%2F')}@{inode}.json"

    def _metadata(self, key: str, status: os.stat_result) -> dict[str, Any]:
        try:
            kept = json.loads(self._metadata_path(key, status.st_ino).read_bytes())
        except (OSError, ValueError):
            return {}
        return dict(kept) if kept.get("size") == status.st_size else {}

    def _keep_metadata(
        self, key: str, status: os.stat_result, metadata: Mapping[str, str], crc64nvme: str | None
    ) -> None:
        kept = {"size": status.st_size, "metadata": dict(metadata), "crc64nvme": crc64nvme}
        temporary = self._temporary(json.dumps(kept).encode())
        path = self._metadata_path(key, status.st_ino)
        for attempt in range(ATTEMPTS):  # another driver may remove the folder while it is empty
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(temporary, path)
                return
            except FileNotFoundError:
                if attempt == ATTEMPTS - 1 or not temporary.exists():
                    raise


def _publish(temporary: Path, path: Path, *, if_absent: bool) -> None:
    """Give a whole file its name. A file system without hard links gets a create-only copy."""
    if not if_absent:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with open(path, "xb") as file:
            file.write(temporary.read_bytes())
            file.flush()
            os.fdatasync(file.fileno())


def sync_folder(folder: Path) -> None:
    """After this the folder's entries outlive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
