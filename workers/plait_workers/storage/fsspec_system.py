"""One fsspec file system: made when it is needed, asked freshly, its errors mapped.

All calls into fsspec are made here. Each goes through exactly one layer of retries: the library's where
it has one, else ours. Answers of a wrong length, which no library minds, are always tried again by us.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from plait.errors import SourceMissing, SpecInvalid, StoreUnavailable
from plait.uri import Uri
from plait_workers.storage.fsspec_errors import library_errors
from plait_workers.storage.fsspec_info import Info
from plait_workers.storage.fsspec_schemes import hint_of, require

_OWN_RETRIES: Final = {"gs", "az", "abfs", "abfss"}  # of every request
_OWN_READ_RETRIES: Final = {*_OWN_RETRIES, "hf"}
_THREADED: Final = {"hf", "memory"}  # besides all that is asynchronous, which runs in a loop of its own
_ATTEMPTS: Final = 5
_AHEAD: Final = 32

T = TypeVar("T")


class ShortAnswer(StoreUnavailable):
    """Fewer bytes came than were asked for."""


@dataclass(frozen=True, slots=True)
class _Opened:
    fs: Any
    root: str
    resolved: str
    commit: str | None
    turn: Any


class FsspecSystem:
    """Shared by threads; not by forks.

    Args:
        uri: the root.
        resolved: what another process made of ``uri``, to read the same commit; None to find out.

    Raises:
        SpecInvalid: fsspec knows no such scheme, or the package that serves it is not installed.
    """

    def __init__(self, uri: Uri, resolved: str | None = None) -> None:
        self.uri = uri
        self.already = resolved
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._ahead: ThreadPoolExecutor | None = None
        require(uri.scheme, str(uri))

    def where(self, key: str) -> str:
        """A key as messages name it."""
        return f"{str(self.uri).rstrip('/')}/{key}"

    @property
    def _open(self) -> _Opened:
        with self._lock:
            if self._opened is None:
                opened = self._again(self._connect, "opening a store", str(self.uri), _OWN_RETRIES)
                self._opened, self.already = opened, opened.resolved
            return self._opened

    def _connect(self) -> _Opened:
        from fsspec.core import url_to_fs
        from fsspec.dircache import DirCache

        place = self.already or str(self.uri)
        try:
            # An instance of our own, as its cache is turned off.
            fs, root = url_to_fs(place, skip_instance_cache=True)
        except (TypeError, ValueError) as error:
            raise SpecInvalid(
                "the store cannot be opened", where=place, hint=hint_of(self.uri.scheme)
            ) from error
        if isinstance(getattr(fs, "dircache", None), DirCache):
            fs.dircache.use_listings_cache = False  # else a look would show what lay there once
        commit = None
        if self.uri.scheme == "hf":
            from plait_workers.storage.fsspec_hub import resolve

            root, commit = resolve(fs, root, place)
            place = place if commit is None else f"hf://{root}"
        safe = getattr(fs, "async_impl", False) or self.uri.scheme in _THREADED
        return _Opened(fs, root.rstrip("/"), place, commit, nullcontext() if safe else threading.Lock())

    @property
    def commit(self) -> str | None:
        """The commit that all is read from; None where the store has none."""
        return self._open.commit

    @property
    def resolved(self) -> str:
        """The root with its commit."""
        return self._open.resolved

    @property
    def root(self) -> str:
        """The root as the file system names it, without a slash at its end."""
        return self._open.root

    def pin(self, info: Info) -> dict[str, Any]:
        """What :meth:`fetch` is told so that it reads this version and no other; often nothing."""
        generation = info.get("generation")
        return {"generation": generation} if self.uri.scheme == "gs" and generation else {}

    def look(self, key: str) -> dict[str, Any] | None:
        """What lies at ``key`` now, if it is a file whose size the store tells."""
        path = f"{self.root}/{key}"
        try:
            found = self._call(
                lambda fs: self._fresh(fs, fs.info)(path), "looking at a source", key, _OWN_RETRIES
            )
        except SourceMissing:
            return None
        info = dict(found)
        return info if info.get("type") == "file" and info.get("size") is not None else None

    def list(self, folder: str, *, deep: bool) -> dict[str, dict[str, Any]]:
        """What lies in a folder by the name below the root, folders included; empty if it is not there."""
        root = self.root
        top = f"{root}/{folder}".rstrip("/")

        def ask(fs: Any) -> Any:
            if deep:
                found = self._fresh(fs, fs.find)(top, detail=True)
                return list(found.values()) if isinstance(found, dict) else []  # adlfs, of a file
            return self._fresh(fs, fs.ls)(top, detail=True)

        try:
            found = self._call(ask, "listing a source", folder, _OWN_RETRIES)
        except SourceMissing:
            return {}
        below = f"{root}/"
        return {
            info["name"].removeprefix(below).rstrip("/"): dict(info)
            for info in found
            if info["name"].startswith(below) and len(info["name"]) > len(below)
        }

    def _fresh(self, fs: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        """``method`` without what its file system remembers."""
        if self.uri.scheme == "hf":
            # Dropping all would also drop which repositories there are. A look leaves out the hash of the
            # bytes unless all is asked for.
            more = {"expand_info": True} if method == fs.info else {}
            return partial(method, refresh=True, **more)
        fs.invalidate_cache()
        return method

    def fetch(self, key: str, start: int, stop: int, *, shorter: bool = False, **pin: Any) -> bytes:
        """Bytes ``start`` to ``stop`` by one request.

        Args:
            shorter: whether fewer bytes are right, as ``stop`` may lie behind the end.
            pin: of :meth:`pin`.
        """
        if start >= stop:
            return b""
        path = f"{self.root}/{key}"
        # What is read ahead without being asked for would be read, and paid, twice.
        options = {"cache_type": "none"} if self.uri.scheme == "hf" else {}

        def ask(fs: Any) -> bytes:
            data = bytes(fs.cat_file(path, start=start, end=stop, **options, **pin))
            if len(data) > stop - start:
                raise SpecInvalid(
                    "the server does not answer requests for ranges",
                    where=self.where(key),
                    expected=f"{stop - start} bytes",
                    found=f"{len(data)}",
                    hint="Copy the model to a local folder or to s3://",
                )
            if len(data) < stop - start and not shorter:
                raise ShortAnswer(
                    "reading a source",
                    where=self.where(key),
                    expected=f"{stop - start} bytes",
                    found=f"{len(data)}",
                )
            return data

        return self._call(ask, "reading a source", key, _OWN_READ_RETRIES)

    def submit(self, task: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run ``task`` ahead of its need."""
        with self._lock:
            if self._ahead is None:
                self._ahead = ThreadPoolExecutor(_AHEAD, thread_name_prefix="plait-fsspec")
            return self._ahead.submit(task, *arguments)

    def _call(self, ask: Callable[[Any], T], doing: str, key: str, own: set[str]) -> T:
        opened = self._open

        def once() -> T:
            with opened.turn:
                return ask(opened.fs)

        return self._again(once, doing, self.where(key), own)

    def _again(self, once: Callable[[], T], doing: str, where: str, own: set[str]) -> T:
        def worth_it(error: BaseException) -> bool:
            passing = isinstance(error, StoreUnavailable) and self.uri.scheme not in own
            return passing or isinstance(error, ShortAnswer)

        def mapped() -> T:
            with library_errors(doing, where):
                return once()

        return Retrying(
            retry=retry_if_exception(worth_it),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            reraise=True,
        )(mapped)
