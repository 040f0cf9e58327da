"""HTTP/1.1 as the proxy speaks it: whole messages, as what S3 is sent in tests is small."""

from __future__ import annotations

import http.client
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

_NO_BODY = (204, 304)


@dataclass(frozen=True)
class Request:
    """A request whole. ``head`` is what came, as its signature covers most of it."""

    method: str
    target: str
    head: bytes
    headers: Mapping[str, str]
    body: bytes

    def flipped(self) -> Request:
        return replace(self, body=flip(self.body))


@dataclass(frozen=True)
class Answer:
    """An answer whole; ``length`` is what it says its length is, where no body follows."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    has_body: bool = True

    def header(self, name: str) -> str:
        return next((value for found, value in self.headers if found.lower() == name), "")

    def having(self, body: bytes, **headers: str) -> Answer:
        """Another body, and other headers (``_`` for ``-``)."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = [(name, value) for name, value in self.headers if name.lower() not in changed]
        return replace(self, body=body, headers=[*kept, *changed.items()])

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Head and body."""
        headers = self.headers
        if self.has_body:
            unframed = [
                pair for pair in headers if pair[0].lower() not in ("content-length", "transfer-encoding")
            ]
            headers = [*unframed, ("Content-Length", str(len(self.body)))]
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1"), self.body if self.has_body else b""


def flip(data: bytes) -> bytes:
    """One bit of every hundredth byte is another: enough that a merge which uses the bytes must differ."""
    changed = bytearray(data)
    for place in range(min(40, len(changed) // 2), len(changed), 100):
        changed[place] ^= 0x10
    return bytes(changed)


def error_answer(status: int, code: str, method: str) -> Answer:
    """As S3 words its errors; an answer to HEAD has no words."""
    text = f"<Error><Code>{code}</Code><Message>Injected.</Message><RequestId>0</RequestId></Error>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    headers = [("Content-Type", "application/xml"), ("x-amz-request-id", "0")]
    return Answer(status, code, headers, b"" if method == "HEAD" else body)


def read_request(client: socket.socket, stream: BinaryIO) -> Request | None:
    """The next request of a connection; None at its end."""
    lines = [stream.readline()]
    if not lines[0].strip():
        return None
    while lines[-1].strip():
        lines.append(stream.readline())
        if not lines[-1]:
            return None
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    pairs = (line.decode("latin-1").partition(":") for line in lines[1:-1])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("expect", "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        lines = [line for line in lines if not re.match(rb"expect\s*:", line, re.IGNORECASE)]
    if "chunked" in headers.get("transfer-encoding", "").lower():
        raise NotImplementedError("a request in chunks")
    length = int(headers.get("content-length", 0))
    body = stream.read(length)
    if len(body) < length:
        return None
    return Request(method, target, b"".join(lines), headers, body)


def exchange(server: socket.socket, request: Request) -> tuple[Answer, bool]:
    """Send a request on; the answer, and whether the connection can be used again."""
    server.sendall(request.head)
    server.sendall(request.body)
    with http.client.HTTPResponse(server, method=request.method) as response:
        response.begin()
        body = response.read()
        has_body = request.method != "HEAD" and response.status not in _NO_BODY
        answer = Answer(response.status, response.reason, response.getheaders(), body, has_body)
        return answer, not response.will_close


def reset(client: socket.socket) -> None:
    """Close so that the other side sees "connection reset by peer"."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
