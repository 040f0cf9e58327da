"""What fsspec's file systems raise, mapped to the tree of :mod:`plait.errors`.

Their messages are not repeated: signed URLs and tokens stand in some. The class and the HTTP status say
what happened; the library's own error stays the cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from plait.errors import (
    AccessDenied,
    AuthExpired,
    PlaitError,
    SourceChanged,
    SourceMissing,
    SpecInvalid,
    StoreUnavailable,
)
from plait_workers.storage.errors import map_os_error

_GONE: Final = {404, 410}
_REFUSED: Final = {401, 402, 403, 407, 451}
_NO_RANGE: Final = 416
# By name, as none of these packages needs to be installed.
_NO_CREDENTIALS: Final = {"DefaultCredentialsError", "CredentialUnavailableError", "LocalTokenNotFoundError"}
_LAPSED: Final = {"RefreshError", "ReauthFailError"}
_EXPIRED: Final = re.compile(r"expired|invalid credentials|not valid in the specified time", re.IGNORECASE)
_LOG_IN: Final = "Log in with the store's own tool, or set its credentials in the environment"


def map_error(error: Exception, doing: str, where: str) -> PlaitError:
    """The error of ours that stands for ``error``."""
    if isinstance(error, PlaitError):
        return error
    status = status_of(error)
    found = type(error).__name__ if status is None else f"{type(error).__name__}, HTTP status {status}"
    names = {base.__name__ for base in type(error).__mro__}
    if names & _LAPSED:
        return AuthExpired(doing, where=where, found=found, hint=_LOG_IN)
    # gcsfs writes a refusal as an OSError without a number.
    if status in _REFUSED or names & _NO_CREDENTIALS or str(error).startswith("Forbidden"):
        kind = AuthExpired if _EXPIRED.search(str(error)) else AccessDenied
        return kind(doing, where=where, found=found, hint=_LOG_IN)
    if status in _GONE or isinstance(error, IsADirectoryError):
        return SourceMissing(doing, where=where, found=found)
    if isinstance(error, FileNotFoundError):
        return SourceMissing(doing, where=where, found="nothing")
    if isinstance(error, PermissionError):
        return AccessDenied(doing, where=where, found=found, hint=_LOG_IN)
    if status == _NO_RANGE:
        return SourceChanged(doing, where=where, expected="a longer file", found=found)
    if isinstance(error, ImportError):
        return SpecInvalid(doing, where=where, found=f"the package {error.name or '?'} is not installed")
    if isinstance(error, OSError) and status is None and error.errno is not None:
        return map_os_error(error, doing, where)
    return StoreUnavailable(doing, where=where, found=found)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of a library's error, wherever it keeps it."""
    response = getattr(error, "response", None)
    # requests, httpx and the Hub; Azure; aiohttp; gcsfs, partly as text
    for holder, name in (
        (response, "status_code"),
        (error, "status_code"),
        (error, "status"),
        (error, "code"),
    ):
        value = getattr(holder, name, None)
        if isinstance(value, int | str) and str(value).isdigit() and 100 <= int(value) < 600:
            return int(value)
    return None


@contextmanager
def library_errors(doing: str, where: str) -> Iterator[None]:
    """Within this block whatever a library raises becomes an error of ours."""
    try:
        yield
    except PlaitError:
        raise
    except Exception as error:
        raise map_error(error, doing, where) from error
