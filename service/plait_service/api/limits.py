"""How much one may ask: the bytes of a body, and requests a minute."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import time
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.errors import TooLarge, TooManyRequests

_FAILURES: Final = 600
_DRAINED: Final = 8 << 20
"""Bytes of a refused body that are read all the same: a client that still writes would not see the answer."""


class RateExceeded(TooManyRequests):
    """Requests come faster than the service allows.

    Args:
        retry_after: seconds to wait.
    """

    def __init__(self, doing: str, *, where: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(doing, where=where, hint=f"Try again in {retry_after} s")


class Rates:
    """Requests of each token, and bad tokens of each address, in the last minute; kept in memory.

    Args:
        requests: a minute, of one token.
        failures: a minute, of one address (of a network of 64 bits, in IPv6). Good tokens from there still
            pass, as many people may share the address of a proxy.
    """

    def __init__(self, requests: int, failures: int = _FAILURES) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(requests)
        self._failures = RateLimitItemPerMinute(failures)

    def count_request(self, name: str) -> None:
        """Count a request of a token.

        Raises:
            RateExceeded: too many of them.
        """
        self._count(self._requests, "requests", name, "more requests a minute than a token may send")

    def count_failure(self, address: str | None) -> None:
        """Count a request whose token is not good.

        Raises:
            RateExceeded: too many of them.
        """
        network = _network(address)
        self._count(self._failures, "failures", network, "more bad tokens a minute than an address may send")

    def _count(self, most: RateLimitItemPerMinute, kind: str, key: str, doing: str) -> None:
        if not self._limiter.hit(most, kind, key):
            reset = self._limiter.get_window_stats(most, kind, key).reset_time
            raise RateExceeded(doing, where=key, retry_after=max(1, math.ceil(reset - time.time())))


def _network(address: str | None) -> str:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


class _Exceeded(Exception):
    """A body grew too large while it was read."""


class BodyLimit:
    """Middleware: a larger body than allowed is answered with 413, in the service's form.

    One that says its length is refused before anything of the app runs; one that comes in pieces as soon as
    it has become too large, whatever the app makes of that.

    Args:
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > self._most:
            await _drain(receive)
            await self._refuse(scope, receive, send)
            return
        await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        exceeded = started = comes_more = False

        async def counting() -> Message:
            nonlocal size, exceeded, comes_more
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._most:
                    exceeded, comes_more = True, message.get("more_body", False)
                    raise _Exceeded
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if exceeded and not started:
                return  # what the app makes of the broken body
            started = True
            await send(message)

        with contextlib.suppress(_Exceeded):
            await self._app(scope, counting, watched)
        if exceeded and not started:
            if comes_more:
                await _drain(receive)
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge("the body of the request", expected=f"at most {self._most:,} bytes")
        headers = {"Connection": "close"}
        response = JSONResponse({"error": error.to_json()}, status_code=413, headers=headers)
        await response(scope, receive, send)


async def _drain(receive: Receive) -> None:
    left = _DRAINED
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))
