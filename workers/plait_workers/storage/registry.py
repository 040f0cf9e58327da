"""Which store serves which URI."""

from __future__ import annotations

from plait.errors import SpecInvalid
from plait.uri import Uri
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.local import LocalStore


def open_store(uri: Uri) -> ObjectStore:
    """A store rooted at ``uri``. Opens no connection and no file.

    Raises:
        SpecInvalid: no store serves this scheme.
    """
    if uri.is_local:
        return LocalStore(uri.local_path)
    raise SpecInvalid(
        "no store serves this kind of URI",
        where=str(uri),
        expected="a local path or file://",
        found=uri.scheme,
    )
