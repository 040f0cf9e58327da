"""Writing a part: merged into one reused buffer, sent as one request."""

from __future__ import annotations

import io
from typing import Any, Final

from plait.errors import InternalError
from plait_workers.storage.base import PartInfo, Upload
from plait_workers.storage.s3.checksums import to_base64
from plait_workers.storage.s3.connection import Connection

_SLICE: Final = 1 << 20


class View(io.RawIOBase):
    """A buffer as a file that is sent without a copy; can be sent again from its start."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        return len(self._data)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes before the next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of any file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(0, min(len(self._data), start + offset))
        return self._at

    def read(self, size: int = -1, /) -> Any:
        """A view of the next bytes: 1 MiB for HTTP's 16 KB, as each piece is a call into the system."""
        count = len(self._data) if size is None or size < 0 else max(size, _SLICE)
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece


class S3PartWriter:
    """A part in memory until it is whole."""

    def __init__(
        self,
        connection: Connection,
        upload: Upload,
        number: int,
        size: int,
        step: int,
        where: str,
        request: dict[str, Any],
    ) -> None:
        self._connection = connection
        self._upload = upload
        self._number = number
        self._step = step
        self._where = where
        self._request = request
        self._size = size
        self._buffer = connection.take_buffer(size)
        self._view = self._buffer[:size]
        self._reserved = 0
        self._written = 0

    def reserve(self, size: int) -> memoryview:
        """The next bytes of the part itself."""
        if self._written + size > self._size or size > self._step:
            raise InternalError("a part is written past its end", where=self._where)
        self._reserved = size
        return self._view[self._written : self._written + size]

    def commit(self) -> None:
        """They stay where they are."""
        self._written += self._reserved
        self._reserved = 0

    def finish(self, *, crc64nvme: int) -> PartInfo:
        """Send it; the store compares the checksum with what arrives."""
        if self._written != self._size:
            raise InternalError("a part is not whole", where=self._where)
        answer = self._connection.attempt(lambda: self._send(crc64nvme))
        part = PartInfo(number=self._number, size=self._size, etag=str(answer["ETag"]))
        self._view.release()
        self._connection.give_back(self._buffer)
        return part

    def _send(self, crc64nvme: int) -> dict[str, Any]:
        """Once. Each try has a body of its own: one that was sent stands at its end."""
        return self._connection.once(
            "upload_part",
            "writing a part",
            self._where,
            UploadId=self._upload.id,
            PartNumber=self._number,
            ContentLength=self._size,
            Body=View(self._view),
            ChecksumCRC64NVME=to_base64(f"{crc64nvme:016x}"),
            **self._request,
        )
