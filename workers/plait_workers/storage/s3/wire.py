"""HTTP connections that are kept, and bodies that are read from the socket into the caller's memory."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import struct
import threading
import weakref
from typing import Any, Final
from urllib.parse import SplitResult

from botocore.httpsession import get_cert_path
from urllib3.util import wait_for_read

_BUFFERED: Final = 8192
"""Most bytes of a body that http.client reads along with the headers."""
_CONNECT: Final = 10.0
_WAKE_AT: Final = 256 << 10
"""Bytes that have to be there before a reader is woken, while more than that are to come."""


class Wires:
    """Connections to any number of servers, reused last in, first out. Shared by threads.

    Args:
        timeout: seconds without a byte.
        ca_bundle: file or folder of certificates to trust; None for those that botocore trusts.
    """

    def __init__(self, *, timeout: float, ca_bundle: str | None) -> None:
        self.timeout = timeout
        self._ca_bundle = ca_bundle
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        weakref.finalize(self, _close_all, self._idle)

    def take(self, server: SplitResult) -> http.client.HTTPConnection:
        """A connection that is open, as far as can be seen."""
        while True:
            with self._lock:
                idle = self._idle.get(server[:2])
                wire = idle.pop() if idle else None
            if wire is None:
                return self._connect(server)
            # What can be read before anything was asked is the server's goodbye.
            if wire.sock is not None and not wait_for_read(wire.sock, timeout=0.0):
                return wire
            wire.close()

    def give_back(self, server: SplitResult, wire: http.client.HTTPConnection) -> None:
        """Its last answer was read to the end."""
        if wire.sock is None:
            return
        with self._lock:
            self._idle.setdefault(server[:2], []).append(wire)

    def _connect(self, server: SplitResult) -> http.client.HTTPConnection:
        host, timeout = server.hostname or "", min(self.timeout, _CONNECT)
        wire: http.client.HTTPConnection
        if server.scheme == "https":
            wire = http.client.HTTPSConnection(host, server.port, timeout=timeout, context=self._context())
        else:
            wire = http.client.HTTPConnection(host, server.port, timeout=timeout)
        wire.connect()
        wire.sock.settimeout(self.timeout)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        seconds = struct.pack("ll", int(self.timeout), int(self.timeout % 1 * 1e6))
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        return wire

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                path = self._ca_bundle or get_cert_path(True)
                is_folder = os.path.isdir(path)
                self._tls = ssl.create_default_context(
                    cafile=None if is_folder else path, capath=path if is_folder else None
                )
            return self._tls


def _close_all(idle: dict[Any, list[http.client.HTTPConnection]]) -> None:
    for wires in idle.values():
        for wire in wires:
            wire.close()


class WireBody:
    """The body of an answer whose length is known; for one thread.

    Of a socket without TLS a step is one call into the system, which returns when the step is full, and wakes
    its thread seldom: each return to the interpreter waits for its lock.
    """

    def __init__(
        self,
        wires: Wires,
        server: SplitResult,
        wire: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
    ) -> None:
        self._wires, self._server, self._wire, self._answer = wires, server, wire, answer
        self._left = answer.length or 0
        self._maybe_buffered = _BUFFERED
        self._flags, self._wakes_at = 0, 1
        self._sock = wire.sock
        if self._sock is not None and not isinstance(self._sock, ssl.SSLSocket):
            self._flags = socket.MSG_WAITALL
        if not self._left:
            self.close()

    def readinto(self, target: memoryview) -> int:
        """Fill ``target`` as far as the body goes; less if bytes are slow to come, 0 if it ended early.

        Raises:
            TimeoutError: no byte came in time.
        """
        target = target[: self._left]
        if not target:
            return 0
        if self._sock is None:  # the server closes after this answer
            count = self._answer.readinto(target)
        elif self._maybe_buffered:
            count = self._read_buffered(target)
        else:
            count = self._receive(self._sock, target)
        self._left -= count
        if not self._left:
            self.close()
        return count

    def _read_buffered(self, target: memoryview) -> int:
        """What came with the headers: ``read1`` gives what is there, or reads, but never reads ahead."""
        asked = min(len(target), self._maybe_buffered)
        data = self._answer.read1(asked)
        target[: len(data)] = data
        self._maybe_buffered = 0 if len(data) < asked else self._maybe_buffered - len(data)
        if not self._maybe_buffered and self._sock is not None and self._flags:
            self._sock.settimeout(None)  # SO_RCVTIMEO from here on
        return len(data)

    def _receive(self, sock: socket.socket, target: memoryview) -> int:
        if self._flags:
            wakes_at = _WAKE_AT if self._left - len(target) >= _WAKE_AT else 1
            if wakes_at != self._wakes_at:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wakes_at)
                self._wakes_at = wakes_at
        try:
            return sock.recv_into(target, len(target), self._flags)
        except BlockingIOError as error:
            raise TimeoutError(f"no byte in {self._wires.timeout:g} s") from error

    def read(self) -> bytes:
        """All that is left, if it comes."""
        data = bytearray(self._left)
        view, done = memoryview(data), 0
        while done < len(data):
            count = self.readinto(view[done:])
            if not count:
                raise http.client.IncompleteRead(bytes(data[:done]), len(data) - done)
            done += count
        return bytes(data)

    def close(self) -> None:
        """Keep the connection if the body was read to its end."""
        wire, self._wire = self._wire, None  # type: ignore[assignment]
        if wire is None:
            return
        self._answer.close()
        if self._left or self._sock is None:
            wire.close()
        else:
            self._sock.settimeout(self._wires.timeout)
            self._wires.give_back(self._server, wire)
