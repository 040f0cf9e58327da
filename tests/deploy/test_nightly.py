"""What posts a night's merge, against a server that answers as Kubernetes does."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.deploy.manifests import KUBERAY
from tests.deploy.schemas import problems

SCRIPT = KUBERAY / "nightly/post.py"
TEMPLATE = KUBERAY / "nightly/rayjob.yaml"
TOKEN = "the-token-of-the-account"


class Kubernetes(ThreadingHTTPServer):
    """Creates objects by name, once; refuses who has no token."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.objects: dict[str, dict[str, Any]] = {}
        self.posts: list[str] = []
        self.fails = 0


class _Handler(BaseHTTPRequestHandler):
    server: Kubernetes

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append(self.path)
        path = f"{self.path.split('?')[0]}/{body['metadata']['name']}"
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(403, {"reason": "Forbidden"})
        elif self.server.fails:
            self.server.fails -= 1
            self._answer(500, {"reason": "InternalError"})
        elif path in self.server.objects:
            self._answer(409, {"reason": "AlreadyExists"})
        else:
            self.server.objects[path] = body
            self._answer(201, body)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """The folder that a pod finds its account in."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(certificate + private)
    (tmp_path / "ca.crt").write_bytes(certificate)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path


@pytest.fixture
def kubernetes(account: Path) -> Iterator[Kubernetes]:
    with Kubernetes(account / "server.pem") as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def post(server: Kubernetes, account: Path, zone: str = "Etc/UTC") -> subprocess.CompletedProcess[str]:
    """What the CronJob's pod does."""
    environment = {
        "PATH": os.environ["PATH"],
        "ACCOUNT_FOLDER": str(account),
        "KUBERNETES_SERVICE_HOST": "localhost",
        "KUBERNETES_SERVICE_PORT": str(server.server_port),
        "TIME_ZONE": zone,
    }
    command = [sys.executable, SCRIPT, TEMPLATE]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_day_is_posted_once(kubernetes: Kubernetes, account: Path) -> None:
    first, second = post(kubernetes, account), post(kubernetes, account)
    assert (first.returncode, first.stderr, second.returncode, second.stderr) == (0, "", 0, "")
    assert first.stdout.startswith("posted plait-nightly-")
    assert second.stdout.endswith("is there already\n")
    assert len(kubernetes.posts) == 2
    [(path, job)] = kubernetes.objects.items()
    name = job["metadata"]["name"]
    assert path == f"/apis/ray.io/v1/namespaces/plait/rayjobs/{name}"
    day = name.removeprefix("plait-nightly-")
    assert f"/runs/{day}/" in job["spec"]["entrypoint"]
    assert "DATE" not in json.dumps(job)
    assert problems(job) == []


def test_unknown_fields_would_be_refused_and_not_dropped(kubernetes: Kubernetes, account: Path) -> None:
    post(kubernetes, account)
    assert [one.partition("?")[2] for one in kubernetes.posts] == ["fieldValidation=Strict"]


def test_the_day_is_the_one_in_the_time_zone(kubernetes: Kubernetes, account: Path) -> None:
    hours = (14, -12)  # a day and two hours lie between them: it is never the same day in both
    for zone in ("Etc/GMT-14", "Etc/GMT+12"):
        assert post(kubernetes, account, zone).returncode == 0
    days = [job["metadata"]["name"].removeprefix("plait-nightly-") for job in kubernetes.objects.values()]
    now = datetime.now(UTC)
    assert days == [f"{now.astimezone(timezone(timedelta(hours=each))):%Y-%m-%d}" for each in hours]
    assert len(set(days)) == 2


def test_a_refusal_is_said_and_a_failure(kubernetes: Kubernetes, account: Path) -> None:
    (account / "token").write_text("another")
    refused = post(kubernetes, account)
    assert (refused.returncode, kubernetes.objects) == (1, {})
    assert "HTTP 403" in refused.stderr
    assert "Forbidden" in refused.stderr
    assert "another" not in refused.stderr + refused.stdout


def test_a_server_in_trouble_is_asked_again_by_the_next_pod(kubernetes: Kubernetes, account: Path) -> None:
    kubernetes.fails = 1
    assert [post(kubernetes, account).returncode for _ in range(2)] == [1, 0]


def test_a_server_that_cannot_show_its_certificate_is_told_nothing(
    kubernetes: Kubernetes, account: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "token").write_text(TOKEN)
    (other / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    run = post(kubernetes, other)
    assert (run.returncode, kubernetes.posts) == (1, [])
    assert TOKEN not in run.stdout + run.stderr
