"""A local folder as a store.

* create-only is a hard link onto the name (it fails if the name is taken, and shows whole contents);
* an upload is a preallocated file in ``.plait/uploads/ID/`` with a log of finished parts beside it;
* complete is fdatasync and a hard link: atomic, and a second one finds the upload gone;
* metadata lies in ``.plait/objects/``, under the file's inode, written before the file appears.

A version is inode, size, mtime and ctime, in nanoseconds; links are followed, so that a Hugging Face
cache, which is made of them, reads like any folder.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from plait.errors import InternalError, SourceMissing, UploadGone
from plait_workers.storage.base import ObjectInfo, PartInfo, PartLimits, PartWriter, Upload
from plait_workers.storage.errors import os_errors
from plait_workers.storage.local_blocks import BLOCK, BlockFile, open_blocks
from plait_workers.storage.local_direct import MIN_DIRECT, DirectPartWriter, Lane, buffer_bytes
from plait_workers.storage.local_objects import ATTEMPTS, NO_LINKS, LocalObjects, sync_folder
from plait_workers.storage.local_parts import CachedPartWriter, PartPlace, UploadFile


class LocalStore(LocalObjects):
    """A folder. Any number of processes may use it at once; a lost one leaves no half object."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._files: dict[str, UploadFile] = {}
        self._lanes: list[Lane] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LocalStore({str(self._root)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (LocalStore, (self._root,))

    @property
    def part_limits(self) -> PartLimits | None:
        """Any parts will do."""
        return None

    def probe(self, key: str) -> None:
        """A file system keeps its promises."""

    def _upload_folder(self, upload: Upload) -> Path:
        return self._private / "uploads" / upload.id

    @staticmethod
    def _make_folder(folder: Path, metadata: str) -> None:
        for attempt in range(ATTEMPTS):  # another driver may remove it, or its parent, while it is empty
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "metadata").write_text(metadata)
                return
            except FileNotFoundError:
                if attempt == ATTEMPTS - 1:
                    raise

    def create_upload(self, key: str, *, size: int, metadata: Mapping[str, str]) -> Upload:
        """Preallocate the file: a full disk is found out now, not half-way."""
        upload = Upload(key=key, id=uuid.uuid4().hex, size=size)
        folder = self._upload_folder(upload)
        self._path(key)
        with os_errors("preallocating a shard", self._where(key)):
            self._make_folder(folder, json.dumps(dict(metadata)))
            (folder / "key").write_text(key)
            try:
                with open(folder / "data", "xb") as file:
                    if size:
                        os.posix_fallocate(file.fileno(), 0, size)
                (folder / "parts").touch()
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return upload

    def _file(self, upload: Upload) -> UploadFile:
        with self._lock:
            if upload.id not in self._files:
                try:
                    self._files[upload.id] = UploadFile(self._upload_folder(upload) / "data")
                except FileNotFoundError as error:
                    raise UploadGone("opening an upload", where=self._where(upload.key)) from error
            return self._files[upload.id]

    def _blocks(self, upload: Upload, file: UploadFile, offset: int, size: int) -> BlockFile | None:
        if size < MIN_DIRECT or offset % BLOCK:
            return None
        try:
            return open_blocks(self._root, self._upload_folder(upload) / "data", file)
        except FileNotFoundError as error:
            raise UploadGone("opening an upload", where=self._where(upload.key)) from error

    def part_buffer_bytes(self, part_size: int, step: int) -> int:
        """A step, and two buffers that take turns, kept meanwhile, if parts may go past the page cache."""
        return min(part_size, step) + (buffer_bytes(step) if part_size >= MIN_DIRECT else 0)

    def begin_part(self, upload: Upload, number: int, *, offset: int, size: int, step: int) -> PartWriter:
        """Write at the part's place in the preallocated file, past the page cache if that can be."""
        with os_errors("writing a part", self._where(upload.key)):
            file = self._file(upload)
            blocks = self._blocks(upload, file, offset, size)
        place = PartPlace(
            file=file,
            log=self._upload_folder(upload) / "parts",
            where=self._where(upload.key),
            number=number,
            offset=offset,
            size=size,
            step=step,
        )
        return CachedPartWriter(place) if blocks is None else DirectPartWriter(place, blocks, self._lanes)

    def flush(self, upload: Upload) -> None:
        """fdatasync of the data."""
        with os_errors("syncing a shard", self._where(upload.key)):
            self._file(upload).sync()

    def list_parts(self, upload: Upload) -> Sequence[PartInfo]:
        """The log of finished parts; a line that was cut by a crash does not count."""
        try:
            with os_errors("listing parts", self._where(upload.key)):
                lines = (self._upload_folder(upload) / "parts").read_text().splitlines()
        except SourceMissing as error:
            raise UploadGone("listing parts", where=self._where(upload.key)) from error
        parts: dict[int, PartInfo] = {}
        for line in lines:
            fields = line.split()
            if len(fields) == 4 and fields[3] == ";":
                number, size = int(fields[0]), int(fields[1])
                parts[number] = PartInfo(number=number, size=size, etag=fields[2])
        return [parts[number] for number in sorted(parts)]

    def complete(self, upload: Upload, parts: Sequence[PartInfo], *, crc64nvme: str) -> ObjectInfo:
        """Sync, keep the metadata, give it its name if that is free. The folder's entry is synced too."""
        folder, path = self._upload_folder(upload), self._path(upload.key)
        if sum(part.size for part in parts) != upload.size:
            raise InternalError("completing an upload whose parts are not all there", where=str(path))
        try:
            with os_errors("completing a shard", self._where(upload.key)):
                self._file(upload).sync()
                metadata = json.loads((folder / "metadata").read_text())
                self._keep_metadata(upload.key, (folder / "data").stat(), metadata, crc64nvme)
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _name(folder / "data", path)
                except FileExistsError as error:
                    where = self._where(upload.key)
                    raise UploadGone("completing a shard", where=where, found="a file there") from error
                sync_folder(path.parent)
        except SourceMissing as error:
            raise UploadGone("completing a shard", where=self._where(upload.key)) from error
        self.abort(upload)
        info = self.head(upload.key)
        if info is None:
            raise UploadGone("completing a shard", where=self._where(upload.key))
        return info

    def list_uploads(self) -> Iterator[Upload]:
        """Uploads by their folders."""
        with os_errors("listing uploads", self.uri):
            folder = self._private / "uploads"
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
            for name in names:
                with suppress(FileNotFoundError):  # gone meanwhile, or not quite begun
                    yield Upload(key=(folder / name / "key").read_text(), id=name, size=0)

    def abort(self, upload: Upload) -> None:
        """Remove the upload's files; a writer that still holds them writes into nothing."""
        with self._lock:
            self._files.pop(upload.id, None)
        shutil.rmtree(self._upload_folder(upload), ignore_errors=True)
        self._remove_empty(self._upload_folder(upload).parent)


def _name(data: Path, path: Path) -> None:
    """Give a whole file of any size its name, unless that is taken; the old name goes."""
    try:
        os.link(data, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.replace(data, path)
    else:
        os.unlink(data)
