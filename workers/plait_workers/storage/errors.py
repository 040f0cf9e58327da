"""What operating systems raise, mapped to the tree of :mod:`plait.errors`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from plait.errors import AccessDenied, NoSpace, PlaitError, SourceMissing, StoreUnavailable

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MISSING = {errno.ENOENT, errno.ENOTDIR}


def map_os_error(error: OSError, doing: str, where: str) -> PlaitError:
    """The error of ours that stands for an ``OSError``."""
    reason = error.strerror or type(error).__name__
    if error.errno in _DENIED:
        return AccessDenied(doing, where=where, found=reason, hint="Check the owner and the mode")
    if error.errno in _FULL:
        return NoSpace(doing, where=where, found=reason, hint="Make room, then run the same command again")
    if error.errno in _MISSING:
        return SourceMissing(doing, where=where, found=reason)
    return StoreUnavailable(doing, where=where, found=reason)


@contextmanager
def os_errors(doing: str, where: str) -> Iterator[None]:
    """Within this block an ``OSError`` becomes an error of ours."""
    try:
        yield
    except OSError as error:
        raise map_os_error(error, doing, where) from error
