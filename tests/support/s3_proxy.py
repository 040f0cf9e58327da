"""A proxy before an S3 server that records what is asked, and lets chosen requests go wrong.

It forwards the Host header as it came, so signatures stay valid: clients talk to the proxy's address.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tests.support.s3_faults import Fault, Kind, Traffic
from tests.support.s3_labels import Label, label_of
from tests.support.s3_wire import Answer, Request, error_answer, exchange, flip, read_request, reset

if TYPE_CHECKING:
    from demo.weed import Access

Choose = Callable[[Label], Kind | None]
"""What goes wrong with a request, if anything; asked once for each, from many threads."""

_ANSWERS = {
    Kind.INTERNAL: (500, "InternalError"),
    Kind.INTERNAL_AFTER: (500, "InternalError"),
    Kind.SLOW_DOWN: (503, "SlowDown"),
    Kind.EXPIRED: (400, "ExpiredToken"),
    Kind.DENIED: (403, "AccessDenied"),
    Kind.ERROR_IN_200: (200, "InternalError"),
    Kind.ERROR_IN_200_AFTER: (200, "InternalError"),
}


def injecting(faults: Iterable[Fault]) -> Choose:
    """These faults, each at its label."""
    planned = list(faults)
    return lambda label: next((fault.kind for fault in planned if fault.strikes(label)), None)


class S3Proxy:
    """Listens on a free port until ``close()``, or to the end of a ``with`` block.

    ``calls`` are the requests that came, ``struck`` those of them that went wrong, ``traffic`` is what
    passed for each that the server answered.

    Args:
        server: what it stands before.
        choose: what goes wrong.
        after: told of each request that the server has answered, before the client is.
        listening: the socket that it accepts connections from; on the loopback if absent.
    """

    def __init__(
        self,
        server: Access,
        choose: Choose = lambda _label: None,
        after: Callable[[Label], None] = lambda _label: None,
        listening: socket.socket | None = None,
    ) -> None:
        self.calls: list[Label] = []
        self.struck: list[tuple[Label, Kind]] = []
        self.traffic: dict[Label, Traffic] = {}
        self._server = server
        address = urlsplit(server.endpoint)
        self._address = (address.hostname, address.port)
        self._choose = choose
        self._after = after
        self._counts: Counter[Label] = Counter()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listening = listening or socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        host, port = self._listening.getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def access(self) -> Access:
        """As of the server, by way of this proxy."""
        return replace(self._server, endpoint=self.endpoint)

    def close(self) -> None:
        """Break all connections and listen no more."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> S3Proxy:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(client)
        line = _Line(self._address)
        try:
            with client.makefile("rb") as stream:
                while (request := read_request(client, stream)) is not None:
                    if not self._handle(client, line, request):
                        return
        except OSError:
            pass  # the client went away, or the proxy is being closed
        finally:
            line.close()
            with self._lock:
                self._open.discard(client)
            client.close()

    def _handle(self, client: socket.socket, line: _Line, request: Request) -> bool:
        """Answer one request, or go wrong; whether the connection lives on."""
        label = self._note(label_of(request.method, request.target, request.headers))
        kind = self._choose(label)
        if kind is Kind.FLIPPED_UP and request.body:
            request = request.flipped()
        answer = None if kind is not None and kind.spares_the_server else line.ask(request)
        if answer is not None:
            received = len(answer.body) if answer.has_body else 0
            self.traffic[label] = Traffic(answer.status, len(request.body), received)
            self._after(label)
        if kind is None or not (kind.spares_the_server or self.traffic[label].allows(kind)):
            return _send(client, answer)
        with self._lock:
            self.struck.append((label, kind))
        return self._strike(client, request, kind, answer)

    def _note(self, label: Label) -> Label:
        with self._lock:
            self._counts[label] += 1
            label = replace(label, count=self._counts[label])
            self.calls.append(label)
        return label

    def _strike(self, client: socket.socket, request: Request, kind: Kind, answer: Answer | None) -> bool:
        if kind in _ANSWERS:
            return _send(client, error_answer(*_ANSWERS[kind], request.method))
        if kind in (Kind.RESET, Kind.RESET_AFTER):
            reset(client)
        elif kind in (Kind.TIMEOUT, Kind.TIMEOUT_AFTER):
            _be_silent(client)
        elif answer is not None and kind in (Kind.STALL, Kind.TRUNCATED):
            head, body = answer.to_bytes()
            client.sendall(head + body[: len(body) // 2])
            if kind is Kind.STALL:
                _be_silent(client)
        else:
            return _send(client, self._damaged(request, kind, answer))
        return False

    def _damaged(self, request: Request, kind: Kind, answer: Answer | None) -> Answer | None:
        """An answer that looks whole and is not what was asked for."""
        if answer is None or kind is Kind.FLIPPED_UP:
            return answer
        if kind is Kind.FLIPPED:
            return answer.having(flip(answer.body))
        if kind is Kind.WHOLE:
            name, _, key = unquote(urlsplit(request.target).path).lstrip("/").partition("/")
            whole = self._server.client().get_object(Bucket=name, Key=key)["Body"].read()
            kept = [pair for pair in answer.headers if pair[0].lower() != "content-range"]
            return replace(answer, status=200, reason="OK", headers=kept, body=whole)
        span, _, size = answer.header("content-range").removeprefix("bytes ").partition("/")
        start, stop = (int(number) for number in span.split("-"))
        if kind is Kind.SHORT:
            body = answer.body[: len(answer.body) // 2]
            return answer.having(body, content_range=f"bytes {start}-{start + len(body) - 1}/{size}")
        return answer.having(answer.body, content_range=f"bytes {start + 1}-{stop + 1}/{size}")


class _Line:
    """A connection to the server, opened anew when the server has closed it."""

    def __init__(self, address: tuple[str | None, int | None]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def ask(self, request: Request) -> Answer:
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer, lasts = exchange(self._socket, request)
        if not lasts:
            self.close()
        return answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _send(client: socket.socket, answer: Answer | None) -> bool:
    assert answer is not None
    client.sendall(b"".join(answer.to_bytes()))
    return True


def _be_silent(client: socket.socket) -> None:
    """Until the client gives up."""
    with suppress(OSError):
        while client.recv(1 << 16):
            pass
