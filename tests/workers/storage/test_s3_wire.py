"""Connections and bodies, against a server that does what a test says."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pytest
from urllib3.util import wait_for_read

from plait_workers.storage.s3.wire import WireBody, Wires

DATA = bytes(range(256)) * 4096
Serve = Callable[[socket.socket], None]


class Scripted:
    """Answers each connection with the next of some functions, in a thread."""

    def __init__(self, *serve: Serve, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._serve, self._tls = serve, tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def server(self) -> SplitResult:
        scheme = "https" if self._tls else "http"
        return urlsplit(f"{scheme}://localhost:{self._listening.getsockname()[1]}/")

    def _accept(self) -> None:
        for serve in self._serve:
            with suppress(OSError):
                connection = self._listening.accept()[0]
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                self.connections += 1
                with connection:
                    serve(connection)

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def head(size: int, *more: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 206 Partial Content", f"Content-Length: {size}", *more, "", ""]).encode()


def wait_for_request(connection: socket.socket) -> bool:
    """A request came; false if the client left."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        more = connection.recv(1 << 16)
        if not more:
            return False
        got += more
    return True


def whole(connection: socket.socket) -> None:
    while wait_for_request(connection):
        connection.sendall(head(len(DATA)) + DATA)


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def make(*serve: Serve, tls: ssl.SSLContext | None = None) -> Scripted:
        made.append(Scripted(*serve, tls=tls))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ask(wires: Wires, server: SplitResult) -> WireBody:
    wire = wires.take(server)
    wire.request("GET", "/a")
    return WireBody(wires, server, wire, wire.getresponse())


def read(body: WireBody, step: int) -> bytes:
    found, scratch = b"", memoryview(bytearray(step))
    while count := body.readinto(scratch):
        found += scratch[:count]
    return found


@pytest.mark.parametrize("step", [1000, 8192, 10_000, 1 << 18, 1 << 21])
def test_steps_of_any_size_and_connections_used_again(scripted: Callable[..., Scripted], step: int) -> None:
    server, wires = scripted(whole), Wires(timeout=5, ca_bundle=None)
    for _ in range(3):
        assert read(ask(wires, server.server), step) == DATA
    assert server.connections == 1


def test_a_body_that_comes_with_its_headers(scripted: Callable[..., Scripted]) -> None:
    def small(connection: socket.socket) -> None:
        while wait_for_request(connection):
            connection.sendall(head(5) + b"12345")

    server, wires = scripted(small), Wires(timeout=5, ca_bundle=None)
    for step in (1, 3, 5, 100):
        assert read(ask(wires, server.server), step) == b"12345"
    assert server.connections == 1


def test_a_body_that_ends_early_says_so(scripted: Callable[..., Scripted]) -> None:
    def short(connection: socket.socket) -> None:
        wait_for_request(connection)
        connection.sendall(head(len(DATA)) + DATA[:100_000])

    server, wires = scripted(short, short), Wires(timeout=5, ca_bundle=None)
    body = ask(wires, server.server)
    assert read(body, 1 << 18) == DATA[:100_000]
    body.close()
    with pytest.raises(http.client.IncompleteRead):
        ask(wires, server.server).read()
    assert server.connections == 2


def test_silence_in_a_body_ends(scripted: Callable[..., Scripted]) -> None:
    over = threading.Event()

    def stall(connection: socket.socket) -> None:
        wait_for_request(connection)
        connection.sendall(head(len(DATA)) + DATA[:100_000])
        over.wait(30)

    server, wires = scripted(stall), Wires(timeout=0.2, ca_bundle=None)
    body = ask(wires, server.server)
    with pytest.raises(TimeoutError):
        read(body, 1 << 18)
    over.set()
    body.close()


def test_a_body_that_is_left_takes_its_connection_along(scripted: Callable[..., Scripted]) -> None:
    server, wires = scripted(whole, whole), Wires(timeout=5, ca_bundle=None)
    body = ask(wires, server.server)
    body.readinto(memoryview(bytearray(10)))
    body.close()
    assert ask(wires, server.server).read() == DATA
    assert server.connections == 2


def test_a_connection_that_the_server_gave_up_is_not_used(scripted: Callable[..., Scripted]) -> None:
    left = threading.Event()

    def once(connection: socket.socket) -> None:
        wait_for_request(connection)
        connection.sendall(head(len(DATA)) + DATA)
        left.wait(5)

    server, wires = scripted(once, whole), Wires(timeout=5, ca_bundle=None)
    assert ask(wires, server.server).read() == DATA
    wire = wires.take(server.server)
    wires.give_back(server.server, wire)
    left.set()
    assert wait_for_read(wire.sock, timeout=5)
    assert ask(wires, server.server).read() == DATA
    assert server.connections == 2


def test_a_server_that_closes_after_each_answer(scripted: Callable[..., Scripted]) -> None:
    def close(connection: socket.socket) -> None:
        wait_for_request(connection)
        connection.sendall(head(len(DATA), "Connection: close") + DATA)

    server, wires = scripted(close, close), Wires(timeout=5, ca_bundle=None)
    for _ in range(2):
        assert ask(wires, server.server).read() == DATA
    assert server.connections == 2


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of ``localhost``, signed by itself; key and certificate in one file."""
    path = tmp_path / "localhost.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", path, "-out", tmp_path / "c.pem"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "c.pem").read_bytes())
    return path


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
class TestTls:
    def test_what_is_trusted_is_read(self, scripted: Callable[..., Scripted], certificate: Path) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server, wires = scripted(whole, tls=tls), Wires(timeout=5, ca_bundle=str(certificate))
        for step in (10_000, 1 << 18):
            assert read(ask(wires, server.server), step) == DATA
        assert server.connections == 1

    def test_what_is_not_is_refused(self, scripted: Callable[..., Scripted], certificate: Path) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server, wires = scripted(whole, tls=tls), Wires(timeout=5, ca_bundle=None)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(wires, server.server)
