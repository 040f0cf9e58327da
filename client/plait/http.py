"""HTTP as both clients speak it: requests to make, answers to read, failures to map. No I/O.

What httpx raises never leaves: it is a :class:`plait.errors.ServiceError`, or an ``Again`` that carries one.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from plait import __version__
from plait.answered_errors import BY_STATUS, error_of
from plait.errors import PlaitError, ServiceError, ServiceUnavailable, SpecInvalid, TooManyRequests
from plait.profile import Profile, is_loopback
from plait.retries import Again, retry_after

T = TypeVar("T")

_CONNECT: Final = 10.0
"""Seconds for a connection, unless the timeout is shorter."""
_BUSY: Final = frozenset({429, 502, 503, 504})
_WHERE: Final = ". Is `plait serve` running there? PLAIT_URL, or a profile, says where to ask"
_NOT_BEGUN: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""The request did not go out."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    Args:
        path: below ``/v1``, its parts quoted.
        repeatable: whether a second time does no harm if the first had its effect.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Sequence[tuple[str, str]] = ()
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

    def request(self) -> dict[str, Any]:
        """As httpx takes it."""
        content = None if self.body is None else json.dumps(self.body, allow_nan=False).encode()
        type_of_body = {} if content is None else {"Content-Type": "application/json"}
        return {
            "method": self.method,
            "url": f"/v1/{self.path}",
            "params": list(self.params),
            "content": content,
            "headers": {**type_of_body, **self.headers},
        }


def part(text: str) -> str:
    """An id as one part of a path, whatever is in it."""
    if text in ("", ".", ".."):
        raise SpecInvalid("an id", found=repr(text))
    return quote(text, safe="")


def options(profile: Profile, timeout: float) -> dict[str, Any]:
    """For ``httpx.Client`` and ``httpx.AsyncClient``.

    Redirects are not followed, so that a token goes to no other place; nor does it go to a proxy where the
    service is on this machine.
    """
    headers = {"User-Agent": f"plait/{__version__}", "Accept": "application/json"}
    if profile.token is not None:
        headers["Authorization"] = f"Bearer {profile.token}"
    host = f"[{profile.host}]" if ":" in profile.host else profile.host
    return {
        "base_url": profile.url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=min(timeout, _CONNECT)),
        # Whoever watches a job holds a connection. Idle ones end before the service's do (uvicorn: 5 s).
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=3.0),
        "follow_redirects": False,
        "mounts": {f"all://{host}": None} if is_loopback(profile.host) else None,
        "verify": True if profile.ca_file is None else _trusted(profile.ca_file),
    }


def streaming(usual: httpx.Timeout, silence: float) -> httpx.Timeout:
    """For an answer that is read as it comes."""
    return httpx.Timeout(connect=usual.connect, read=silence, write=usual.write, pool=usual.pool)


def _trusted(file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        found = error.strerror or type(error).__name__
        raise SpecInvalid("the certificates to trust", where=file, found=found) from None


def answer(call: Call[T], response: httpx.Response) -> T:
    """What a good answer says, whose body has been read.

    Raises:
        Again: it is none, and another try may be.
        PlaitError: it is none.
    """
    if response.is_success:
        return understood(call, response.content)
    raise refusal(call, response)


def understood(call: Call[T], content: bytes) -> T:
    """What the body of a good answer says.

    Raises:
        ServiceError: something else than the service says.
    """
    try:
        return call.read(content)
    except (ValidationError, ValueError, KeyError, TypeError):
        raise ServiceError(
            "an answer that is not understood",
            where=f"{call.method} /v1/{call.path}",
            hint="Is there a Plait service at this URL, and of this version?",
        ) from None


def refusal(call: Call[Any], response: httpx.Response) -> Again | PlaitError:
    """What a bad answer means, whose body has been read."""
    status = response.status_code
    error = _said(response) or _unsaid(response)
    # A request that comes too often was not looked at; any other may have had its effect.
    if status in _BUSY and (call.repeatable or status == 429):
        return Again(error, retry_after(response.headers.get("Retry-After")))
    return error


def _said(response: httpx.Response) -> PlaitError | None:
    try:
        body = json.loads(response.content)
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error_of(error) if isinstance(error, dict) and "kind" in error else None


def _unsaid(response: httpx.Response) -> PlaitError:
    """Of an answer that is not our service's."""
    status, where = response.status_code, _bare(response.request.url)
    found = f"{status} {response.reason_phrase}".strip()
    if response.is_redirect:
        place = response.headers.get("Location", "")
        hint = "Set PLAIT_URL to where the service is"
        return ServiceError(
            "redirects are not followed", where=where, found=f"{found} to {_bare(place)}", hint=hint
        )
    return BY_STATUS.get(status, ServiceError)("the service refused", where=where, found=found)


def failure(call: Call[Any], error: httpx.HTTPError) -> Again | PlaitError:
    """What an exception of httpx means."""
    where = _bare(_url_of(error))
    if not isinstance(error, httpx.TransportError) or isinstance(error, httpx.UnsupportedProtocol):
        return ServiceError("an answer that cannot be read", where=where, found=type(error).__name__)
    if _is_of_certificate(error):
        return ServiceError(
            "the service's certificate is not trusted",
            where=where,
            found=str(error)[:200],
            hint="Name its authority with SSL_CERT_FILE, or ca_file in the profile",
        )
    unavailable = ServiceUnavailable(
        "the service is not reached" if isinstance(error, _NOT_BEGUN) else "the service did not answer",
        where=where,
        found=str(error)[:200] or type(error).__name__,
    )
    if call.repeatable or isinstance(error, _NOT_BEGUN):
        return Again(unavailable)
    unavailable.hint = "It may have been done: look before you try again"
    return unavailable


def gave_up(again: Again, seconds: float) -> PlaitError:
    """The error to raise when patience has ended."""
    error = again.error
    if isinstance(error, ServiceUnavailable | TooManyRequests) and error.hint is None:
        after = "" if again.after is None else f"; it asks to wait {again.after:.0f} s"
        error.hint = f"Tried for {seconds:.0f} s{after or _WHERE}"
    return error


def _is_of_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _url_of(error: Exception) -> httpx.URL | str:
    try:
        return error.request.url if isinstance(error, httpx.RequestError) else ""
    except RuntimeError:
        return ""


def _bare(url: httpx.URL | str) -> str:
    """Without what may be secret: user and query."""
    try:
        parsed = httpx.URL(url)
        return str(parsed.copy_with(query=None, fragment=None, userinfo=b"")).rstrip("?")
    except (httpx.InvalidURL, TypeError, ValueError):
        return "the service"
