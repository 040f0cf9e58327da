"""`plait serve` as people run it: started, asked to end, killed, started again, in each other's way."""

from __future__ import annotations

import datetime
import ipaddress
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from plait.jobs import JobState
from tests.support.checkpoints import Family, make_family
from tests.support.merging import digests, merge
from tests.support.service import PLAIT, Service, events_of, final, held
from tests.support.waiting import until

SHAPES = {f"model.layers.{index}.up.weight": ("BF16", (100, 200)) for index in range(4)}
MOST_SECONDS = 10


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path / "models", SHAPES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "service"


def submit(client: httpx.Client, spec: Any) -> str:
    answer = client.post("/v1/jobs", json={"spec": spec})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


class Watch:
    """Reads a stream on a thread until it ends, however it does."""

    def __init__(self, client: httpx.Client, path: str) -> None:
        self.text = ""
        self.broken = False
        self._thread = threading.Thread(target=self._read, args=(client, path), daemon=True)
        self._thread.start()

    def _read(self, client: httpx.Client, path: str) -> None:
        try:
            with client.stream("GET", path, timeout=60) as answer:
                for piece in answer.iter_text():
                    self.text += piece
        except httpx.TransportError:
            self.broken = True

    def ended(self) -> str:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.text


def refused(*arguments: object) -> str:
    """What a service says that does not start because of what it was told."""
    command = [str(PLAIT), "serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("spec-invalid: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


class TestItsEnd:
    def test_a_driver_goes_on_and_the_next_service_finds_it(self, folder: Path, family: Family) -> None:
        with Service(folder) as service, service.client() as client:
            number = submit(client, family.spec())
            driver = held(service)
            until(lambda: client.get(f"/v1/jobs/{number}").json()["state"] == "planning")
            events = Watch(client, f"/v1/jobs/{number}/events")
            logs = Watch(client, f"/v1/jobs/{number}/logs?follow=true")
            until(lambda: "planning" in events.text)

            assert service.stop(MOST_SECONDS) == 0
            assert "event: end" not in events.ended()  # for the job goes on
            logs.ended()
            assert logs.broken  # so nobody takes it for whole
            assert "Traceback" not in service.log()
            assert driver.is_running()

            service.start()
            driver.send_signal(signal.SIGCONT)
            job = final(client, number)
            assert job.state is JobState.SUCCEEDED, job.error
            assert [attempt.number for attempt in job.attempts] == [1]
            assert list(service.attempt_logs()) == [f"{number}-a1"]
        found = digests(family.out)
        family.out.rename(family.root / "by-service")
        merge(family.spec())
        assert digests(family.out) == found

    def test_a_driver_that_ended_meanwhile_is_told_after_a_kill(self, folder: Path, family: Family) -> None:
        with Service(folder) as service, service.client() as client:
            number = submit(client, family.spec())
            driver = held(service)
            service.kill()
            driver.send_signal(signal.SIGCONT)
            until(lambda: not service.drivers())
            service.start()
            job = final(client, number)
            assert job.state is JobState.SUCCEEDED, job.error
            assert len(job.attempts) == 1
            told = events_of(client.get(f"/v1/jobs/{number}/events").text)
            assert [int(each["id"]) for each in told[:-1]] == list(range(1, len(told)))
            assert told[-1]["event"] == "end"

    def test_watchers_see_the_end_of_a_job_that_begins_and_ends(self, folder: Path, family: Family) -> None:
        with Service(folder) as service, service.client() as client:
            number = submit(client, family.spec())
            told = [events_of(Watch(client, f"/v1/jobs/{number}/events").ended()) for _ in range(3)]
            assert told[0][-1]["event"] == "end"
            assert told[0] == told[1] == told[2]
            last = told[0][-2]["id"]
            again = client.get(f"/v1/jobs/{number}/events", headers={"Last-Event-ID": last})
            assert [each["event"] for each in events_of(again.text)] == ["end"]

    @pytest.mark.parametrize("signals", [1, 2])
    def test_with_nothing_to_do(self, folder: Path, signals: int) -> None:
        with Service(folder) as service:
            for _ in range(signals):
                service.terminate()
            assert service.process.wait(MOST_SECONDS) == 0
            assert "Traceback" not in service.log()


class TestWhatItCannotHave:
    def test_a_folder_that_another_service_uses(self, folder: Path) -> None:
        with Service(folder) as service:
            said = refused("--folder", folder, "--port", "0", "--anonymous")
            assert "another service uses this folder" in said
            assert str(folder) in said
            with service.client() as client:
                assert client.get("/readyz").status_code == 200
            service.kill()
            service.start()  # a service that was killed left nothing in the way

    def test_an_option_of_merges_that_is_none(self, folder: Path) -> None:
        said = refused("--folder", folder, "--port", "0", "--merge-option=--bogus=1")
        assert "spec-invalid: No such option" in said
        assert "--bogus" in said

    def test_a_port_that_is_taken(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            said = refused("--folder", folder, "--port", port, "--anonymous")
        assert "the address cannot be had" in said
        assert f"127.0.0.1:{port}" in said

    def test_no_token_for_whoever_reaches_the_machine(self, folder: Path) -> None:
        for host in ("0.0.0.0", "::", "plait.example.org"):
            said = refused("--folder", folder, "--port", "0", "--anonymous", "--host", host)
            assert "access without a token is for this machine alone" in said
        assert not folder.exists()

    def test_a_database_that_is_none(self, folder: Path) -> None:
        said = refused("--folder", folder, "--port", "0", "--database", "nosuch://u:hunter2@h/x")
        assert "the database's URL" in said
        assert "hunter2" not in said

    def test_a_database_that_does_not_answer(self, folder: Path) -> None:
        url = "postgresql+psycopg://plait:hunter2@127.0.0.1:9/plait"
        command = [str(PLAIT), "serve", "--folder", str(folder), "--port", "0", "--database", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("store-unavailable: ")
        assert "hunter2" not in done.stderr


class TestHowItListens:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[Path, Path]:
        """Of 127.0.0.1, signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plait")])
        now = datetime.datetime.now(datetime.UTC)
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([here]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
        cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_file, key_file

    def test_tls(self, folder: Path, certificate: tuple[Path, Path]) -> None:
        cert, key = certificate
        trust = ssl.create_default_context(cafile=str(cert))
        with Service(folder, "--cert", str(cert), "--key", str(key), verify=trust) as service:
            assert service.url.startswith("https://")
            with service.client() as client:
                assert client.get("/v1/me").json()["name"] == "anonymous"
            with httpx.Client() as strange, pytest.raises(httpx.ConnectError, match="certificate"):
                strange.get(f"{service.url}/healthz")
            with httpx.Client() as plain, pytest.raises(httpx.TransportError):
                plain.get(f"{service.url}/healthz".replace("https", "http"))

    def test_half_of_what_tls_needs(self, folder: Path, certificate: tuple[Path, Path]) -> None:
        cert, key = certificate
        common = ("--folder", folder, "--port", "0", "--anonymous")
        assert "the certificate and its key" in refused(*common, "--cert", cert)
        assert "the certificate and its key" in refused(*common, "--cert", key, "--key", cert)
        assert "a key without its certificate" in refused(*common, "--key", key)

    def test_below_a_path_of_a_proxy(self, folder: Path, family: Family) -> None:
        with Service(folder, "--root-path", "/plait") as service, service.client() as client:
            assert "/plait" in service.log().splitlines()[0]
            answer = client.post("/v1/plans", json={"spec": family.spec()})  # the proxy took the path off
            assert answer.headers["Location"] == f"/plait/v1/jobs/{answer.json()['id']}"
            kept = client.get(answer.headers["Location"])  # or left it there
            assert kept.json()["id"] == answer.json()["id"]
            assert client.get("/openapi.json").json()["servers"] == [{"url": "/plait"}]

    def test_a_body_that_is_too_large(self, folder: Path) -> None:
        with Service(folder) as service, service.client() as client:
            body = b'{"spec": {"models": ["' + b"x" * (1 << 20) + b'"]}}'
            pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
            for content in (body, iter(pieces)):
                answer = client.post(
                    "/v1/jobs", content=content, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code == 413
                assert answer.json()["error"]["kind"] == "too-large"
            assert client.get("/v1/jobs").json()["jobs"] == []

    def test_with_tokens(self, folder: Path, family: Family) -> None:
        with Service(folder, "--allow", "file", anonymous=False) as service:
            assert "no token yet: plait token create" in service.log()
            place = str(family.root)
            made = service.token("ann", roles=["submit"], read=[place], write=[place])
            with service.client() as stranger:
                refusal = stranger.get("/v1/jobs")
                assert refusal.status_code == 401
                assert refusal.headers["WWW-Authenticate"] == "Bearer"
            with service.client(made.secret) as client:
                assert final(client, submit(client, family.spec())).state is JobState.SUCCEEDED
