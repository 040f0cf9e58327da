"""Reading models from whatever fsspec reaches: ``gs://``, ``az://``, ``hf://``, ``https://`` and more.

Results are not written there: of these stores some have no "create if absent", and none speaks the
uploads that several writers share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

from plait.errors import SourceChanged, SpecInvalid, StoreUnavailable
from plait.uri import Uri
from plait_workers.storage.base import ObjectInfo, PartInfo, PartLimits, PartWriter, RangeReader, Upload
from plait_workers.storage.fsspec_info import object_info
from plait_workers.storage.fsspec_reader import CHUNK, FsspecReader
from plait_workers.storage.fsspec_system import FsspecSystem

_ATTEMPTS: Final = 10


class FsspecStore:
    """A folder of any file system that fsspec reaches, to read from.

    Every read gives exactly the bytes that were asked for, or raises. Credentials are those that the
    file system finds in the environment. Shared by threads and pickled without its connection, which
    is opened on first use; not to be used on both sides of a fork.

    Args:
        uri: the folder.

    Raises:
        SpecInvalid: fsspec knows no such scheme, or the package that serves it is not installed.
    """

    def __init__(self, uri: Uri, *, resolved: str | None = None) -> None:
        self._system = FsspecSystem(uri, resolved)

    def __repr__(self) -> str:
        return f"FsspecStore({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """What was resolved goes along: all processes read one commit."""
        return (_rebuild, (self._system.uri, self._system.already))

    @property
    def uri(self) -> str:
        """The folder, as it was named."""
        return str(self._system.uri)

    @property
    def resolved(self) -> str:
        """The folder, with the commit that is read where the store has commits. May ask the store."""
        return self._system.resolved

    @property
    def scan_bytes(self) -> int:
        """The piece that is read, and the one that is coming."""
        return 2 * CHUNK

    @property
    def is_remote(self) -> bool:
        """Yes."""
        return True

    def _check(self, key: str) -> None:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise SpecInvalid("a name leads out of its folder", where=self.uri, found=repr(key))

    def head(self, key: str) -> ObjectInfo | None:
        """What lies at ``key`` now; None for nothing, a folder, and a file of unknown size."""
        self._check(key)
        info = self._system.look(key)
        return None if info is None else object_info(key, info, self._system.commit)

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[ObjectInfo]:
        """Files by key, all in memory. Where listings lack sizes (https), one more request a file."""
        self._check(prefix)
        top, _, _ = prefix.rpartition("/")
        found = self._system.list(top, deep=deep)
        for key in sorted(found):
            info = found[key]
            if info.get("type") != "file" or not key.startswith(prefix):
                continue
            described = None
            if info.get("size") is not None:
                described = object_info(key, info, self._system.commit)
            if described is None or not described.version:
                described = self.head(key)
            if described is not None:
                yield described

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The names of the folders right below ``prefix``, sorted."""
        self._check(prefix)
        for key, info in sorted(self._system.list(prefix.rstrip("/"), deep=False).items()):
            if info.get("type") == "directory" and key.startswith(prefix) and key != prefix.rstrip("/"):
                yield key.removeprefix(prefix)

    def get(self, key: str, *, limit: int) -> bytes | None:
        """A small file whole, of one version: it is read by one request, for one byte more than it has."""
        for _ in range(_ATTEMPTS):
            info = self.head(key)
            if info is None:
                return None
            if info.size > limit:
                raise SpecInvalid(
                    "a file is too large", where=self._system.where(key), expected=f"at most {limit} bytes"
                )
            if info.size == 0:
                return b""
            with suppress(SourceChanged):
                data = self._system.fetch(key, 0, info.size + 1, shorter=True)
                if len(data) == info.size:
                    return data
        raise StoreUnavailable(
            "reading a file that changes all the time", where=self._system.where(key), hint="Try again later"
        )

    def open(self, key: str, version: str, *, bulk: bool = False) -> RangeReader:
        """A reader pinned to ``version``; it makes no difference how much will be read."""
        self._check(key)
        return FsspecReader(self._system, key, version)

    # What only a place that is written to is asked.

    def _refuse(self) -> NoReturn:
        raise SpecInvalid(
            f"results are not written to {self._system.uri.scheme}://; write to a local folder or to s3://",
            where=self.uri,
        )

    @property
    def part_limits(self) -> PartLimits | None:
        """None: no parts are written."""
        return None

    def free_bytes(self) -> int | None:
        """None: not known."""
        return None

    def probe(self, key: str) -> None:
        """Refused, as all that follows."""
        self._refuse()

    def now(self) -> float:
        """Refused: only claims ask, and what to compare them with is not known."""
        self._refuse()

    def check_writable(self) -> None:
        """Refused."""
        self._refuse()

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """Refused."""
        self._refuse()

    def replace(self, key: str, data: bytes, *, version: str) -> bool:
        """Refused."""
        self._refuse()

    def delete(self, key: str) -> None:
        """Refused."""
        self._refuse()

    def create_upload(self, key: str, *, size: int, metadata: Mapping[str, str]) -> Upload:
        """Refused."""
        self._refuse()

    def part_buffer_bytes(self, part_size: int, step: int) -> int:
        """Refused."""
        self._refuse()

    def begin_part(self, upload: Upload, number: int, *, offset: int, size: int, step: int) -> PartWriter:
        """Refused."""
        self._refuse()

    def flush(self, upload: Upload) -> None:
        """Refused."""
        self._refuse()

    def list_parts(self, upload: Upload) -> Sequence[PartInfo]:
        """Refused."""
        self._refuse()

    def complete(self, upload: Upload, parts: Sequence[PartInfo], *, crc64nvme: str) -> ObjectInfo:
        """Refused."""
        self._refuse()

    def list_uploads(self) -> Iterator[Upload]:
        """Refused."""
        self._refuse()

    def abort(self, upload: Upload) -> None:
        """Refused."""
        self._refuse()


def _rebuild(uri: Uri, resolved: str | None) -> FsspecStore:
    return FsspecStore(uri, resolved=resolved)
