"""What botocore and the network raise, mapped to the tree of :mod:`plait.errors`."""

from __future__ import annotations

import http.client
from typing import Any, Final

import urllib3.exceptions
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from plait.errors import (
    AccessDenied,
    AuthExpired,
    InternalError,
    NoSpace,
    PlaitError,
    SourceChanged,
    SourceMissing,
    SpecInvalid,
    StoreRefused,
    StoreUnavailable,
    StoreUnsuitable,
    UploadGone,
)

NETWORK: Final = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.ReadTimeoutError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)
"""What a lost or broken connection raises, whoever notices it."""

_SLOW: Final = {"SlowDown", "503", "ServiceUnavailable", "TooManyRequests", "429", "RequestLimitExceeded"}
# 400s that say nothing against the request itself: asking again is right.
_AGAIN: Final = {
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "InternalError",
    "OperationAborted",
    "ConditionalRequestConflict",
}
_FAILED: Final = {500, 502, 504, 520, 522, 524}
_DAMAGED: Final = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
}
_EXPIRED: Final = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_WRONG_KEYS: Final = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "AuthorizationHeaderMalformed",
}
_UNANSWERED: Final[tuple[tuple[tuple[type[Exception], ...], type[PlaitError], str | None], ...]] = (
    (
        (boto.NoCredentialsError, boto.PartialCredentialsError, boto.NoAuthTokenError),
        AccessDenied,
        "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is given",
    ),
    (
        (
            boto.CredentialRetrievalError,
            boto.UnauthorizedSSOTokenError,
            boto.SSOTokenLoadError,
            boto.RefreshWithMFAUnsupportedError,
        ),
        AuthExpired,
        "Renew the credentials",
    ),
    (NETWORK, StoreUnavailable, "Is the endpoint right, and up?"),
    (
        (boto.ParamValidationError, boto.InvalidRegionError, boto.ProfileNotFound, ValueError),
        SpecInvalid,
        None,
    ),
    ((boto.BotoCoreError,), StoreUnavailable, None),
)
"""What fails before a store has answered; the first that fits counts."""


class SlowDown(StoreUnavailable):
    """The store asks for fewer requests."""


class WrongAnswer(StoreUnavailable):
    """The answer is not one to what was asked, or was damaged on its way; a few more tries are worth it."""


def code_of(error: boto.ClientError) -> str:
    """The store's own word for an error, or its HTTP status if it has none."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code or str(status_of(error))


def status_of(error: boto.ClientError) -> int:
    """The HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def map_error(error: Exception, doing: str, where: str) -> PlaitError:
    """The error of ours that stands for what botocore, urllib3 or the system raised."""
    if isinstance(error, PlaitError):
        return error
    if isinstance(error, boto.ClientError):
        return _answered(error, doing, where)
    found = f"{type(error).__name__}: {str(error)[:200]}"
    for kinds, ours, hint in _UNANSWERED:
        if isinstance(error, kinds):
            return ours(doing, where=where, found=found, hint=hint)
    return InternalError(doing, where=where, found=found)


def _answered(error: boto.ClientError, doing: str, where: str) -> PlaitError:
    code, status = code_of(error), status_of(error)
    found = _found(error, code, status)
    if code in _SLOW or status in (429, 503):
        return SlowDown(doing, where=where, found=found, hint="Lower storage.concurrency if this goes on")
    if code in _AGAIN or (status in _FAILED):
        return StoreUnavailable(doing, where=where, found=found)
    if code in _DAMAGED:
        return WrongAnswer(doing, where=where, found=found)
    if code in _EXPIRED:
        return AuthExpired(
            doing, where=where, found=found, hint="Renew the credentials, then run the same command again"
        )
    if code in _WRONG_KEYS or status in (401, 403):
        return AccessDenied(
            doing, where=where, found=found, hint="Check the credentials and the bucket's policy"
        )
    return _refused(code, status)(doing, where=where, found=found)


def _refused(code: str, status: int) -> type[PlaitError]:
    if code == "NoSuchUpload":
        return UploadGone
    if code in ("NoSuchKey", "NoSuchBucket", "NoSuchVersion") or status == 404:
        return SourceMissing
    if status in (412, 416):
        return SourceChanged
    if code in ("QuotaExceeded", "InsufficientStorage", "EntityTooLarge") or status == 507:
        return NoSpace
    return StoreUnsuitable if status == 501 else StoreRefused


def _found(error: boto.ClientError, code: str, status: int) -> str:
    said: Any = error.response.get("Error", {}).get("Message") or ""
    return f"{status} {code}" + (f" ({str(said)[:200]})" if said and said != code else "")
