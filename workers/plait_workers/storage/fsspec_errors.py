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
    StoreUnavailable,
)
from plait_workers.storage.errors import map_os_error

_GONE: Final = {404, 410}
_REFUSED: Final = {401, 402, 403, 407, 451}
_NO_RANGE: Final = 416
# By name, as none of these packages needs to be installed.
_NO_CREDENTIALS: Final = {
    "DefaultCredentialsError",  # Google
    "ClientAuthenticationError",  # Azure
    "LocalTokenNotFoundError",  # the Hub
}
_LAPSED: Final = {"RefreshError", "ReauthFailError"}
_EXPIRED: Final = re.compile(r"expired|invalid credentials|not valid in the specified time", re.IGNORECASE)
_LOG_IN: Final = "Log in with the store's own tool, or set its credentials in the environment"


def map_error(error: BaseException, doing: str, where: str) -> PlaitError:
    """The error of ours that stands for ``error``."""
    if isinstance(error, PlaitError):
        return error
    status = status_of(error)
    names = {base.__name__ for base in type(error).__mro__}
    # The Hub says 401 of what is not there, and of what is there for others.
    hidden = "RepositoryNotFoundError" in names and "GatedRepoError" not in names
    # gcsfs writes a refusal as an OSError without a number.
    refused = status in _REFUSED or bool(names & _NO_CREDENTIALS) or str(error).startswith("Forbidden")
    lapsed = bool(names & _LAPSED) or (refused and _EXPIRED.search(str(error)) is not None)
    choices: tuple[tuple[bool, type[PlaitError], str | None], ...] = (
        (hidden, SourceMissing, "If it is private, log in with `hf auth login`, or set HF_TOKEN"),
        (lapsed, AuthExpired, _LOG_IN),
        (refused or isinstance(error, PermissionError), AccessDenied, _LOG_IN),
        (status in _GONE or isinstance(error, FileNotFoundError | IsADirectoryError), SourceMissing, None),
        (status == _NO_RANGE, SourceChanged, None),
    )
    found = type(error).__name__ if status is None else f"{type(error).__name__}, HTTP status {status}"
    for applies, kind, hint in choices:
        if applies:
            return kind(doing, where=where, found=found, hint=hint)
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
