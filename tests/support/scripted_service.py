"""A server that answers what a test says, request by request, also with connections that break."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[["Handler"], None]
JOB = "j-019acf3b2c410a1b2c3d4e5f"
TOKEN = "plait_a-token-that-nobody-should-see"
NOW = "2026-11-26T02:30:00Z"


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedService(ThreadingHTTPServer):
    """Answers with ``script``, in order; to what comes after it, with 500.

    What was said :meth:`on` a path goes first.
    """

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http" if context is None else "https"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.script: deque[Answer] = deque()
        self.of_path: dict[str, deque[Answer]] = {}
        self.seen: list[Seen] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def will(self, *answers: Answer) -> None:
        self.script.extend(answers)

    def on(self, ending: str, *answers: Answer) -> None:
        """Answers for paths that end so."""
        self.of_path[ending] = deque(answers)

    def next_answer(self, path: str) -> Answer:
        for ending, answers in self.of_path.items():
            if path.endswith(ending) and answers:
                return answers.popleft()
        return self.script.popleft() if self.script else status(500)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave, or trust no certificate, are what is tested."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: ScriptedService

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
        self.server.next_answer(self.path)(self)

    do_GET = do_POST = do_PUT = do_DELETE = _answer


@contextmanager
def scripted(context: ssl.SSLContext | None = None) -> Iterator[ScriptedService]:
    """One that runs for the length of the block."""
    with ScriptedService(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def status(code: int, body: object = None, **headers: str) -> Answer:
    """An answer with JSON, or with text as a proxy's."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def good(body: object) -> Answer:
    """200 with JSON."""
    return status(200, body)


def error(code: int, kind: str, message: str = "no", **fields: object) -> Answer:
    """An error as the service says it."""
    return status(code, {"error": {"kind": kind, "message": message, "retryable": False, **fields}})


def reset(handler: Handler) -> None:
    """The connection is reset, after the request was read."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def silence(handler: Handler) -> None:
    """Nothing, until the test is over."""
    handler.server.over.wait()
    handler.close_connection = True


def pieces(*chunks: bytes, then: Answer | None = None, kind: str = "text/event-stream") -> Answer:
    """A body in chunks; complete, unless something befalls it then."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            handler.wfile.flush()
        if then is not None:
            then(handler)
        else:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def after_last_seen(*events: bytes) -> Answer:
    """The events, numbered from 1, that the client has not seen; and their end."""

    def answer(handler: Handler) -> None:
        pieces(*events[int(handler.headers.get("Last-Event-ID", 0)) :], END)(handler)

    return answer


def cut(handler: Handler) -> None:
    """What was said arrives; then the connection ends in the middle."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def job(state: str = "queued", **changes: Any) -> dict[str, Any]:
    """A job as the service says it."""
    plain = {
        "id": JOB,
        "team": "models",
        "owner": "ci",
        "state": state,
        "spec": {},
        "output": "s3://models/merged",
        "labels": {},
        "priority": 0,
        "overwrite": False,
        "created": NOW,
        "changed": NOW,
    }
    return plain | changes


def event(number: int, kind: str = "progress", **data: Any) -> bytes:
    """An event of a job, as it is streamed."""
    said = {"id": number, "time": NOW, "kind": kind, "data": data}
    return f"id: {number}\r\nevent: {kind}\r\ndata: {json.dumps(said)}\r\nretry: 1000\r\n\r\n".encode()


END = b"event: end\r\ndata: {}\r\n\r\n"


def attempts(*outcomes: str | None) -> Sequence[dict[str, Any]]:
    """Drivers of a job; the one without an outcome still runs."""
    return [
        {
            "number": number,
            "handle": "h",
            "started": NOW,
            "ended": NOW if outcome else None,
            "outcome": outcome,
        }
        for number, outcome in enumerate(outcomes, 1)
    ]


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1, and the file of the certificate that makes it trusted."""
    import ipaddress
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    moment = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, whole = folder / "ca.pem", folder / "server.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    whole.write_bytes(pem.read_bytes() + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(whole)
    return context, pem
