"""Which store serves which URI."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from plait.spec_storage import StorageSpec, StoreOptions
from plait.uri import Uri
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.local import LocalStore

if TYPE_CHECKING:
    from plait_workers.storage.s3.connection import Connection


class Stores:
    """Opens stores under one ``storage`` section; those of equal options share their connections.

    Args:
        storage: of the spec.
    """

    def __init__(self, storage: StorageSpec | None = None) -> None:
        self._storage = storage or StorageSpec()
        self._connections: dict[StoreOptions, Connection] = {}
        self._lock = threading.Lock()

    def open(self, uri: Uri) -> ObjectStore:
        """A store rooted at ``uri``. Opens no connection and no file.

        Raises:
            SpecInvalid: no store serves this scheme, or the package for it is not installed.
        """
        if uri.is_local:
            return LocalStore(uri.local_path)
        # botocore and fsspec take a quarter of a second to import; local merges do without.
        if uri.scheme == "s3":
            from plait_workers.storage.s3.store import S3Store

            return S3Store(uri.authority, uri.path, self._connection(uri.authority))
        from plait_workers.storage.fsspec_store import FsspecStore

        return FsspecStore(uri)

    def _connection(self, bucket: str) -> Connection:
        from plait_workers.storage.s3.connection import Connection

        options = self._storage.options_for(bucket)
        with self._lock:
            if options not in self._connections:
                self._connections[options] = Connection(options)
            return self._connections[options]


def open_store(uri: Uri) -> ObjectStore:
    """A store of its own, spoken to as the environment says."""
    return Stores().open(uri)
