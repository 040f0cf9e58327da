"""How a service runs: what `plait serve` was told."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from plait.errors import SpecInvalid

PORT: Final = 8421
REMOTE: Final = frozenset({"s3", "gs", "az", "abfs", "abfss", "hf"})
"""Schemes that specs may name unless more are allowed: nothing of the service's own machine or network."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one service.

    Args:
        folder: where attempts keep their logs, and SQLite its file.
        database: a URL; by default SQLite in ``folder``. It may hold a password, and is in no repr.
        host, port: where it listens.
        anonymous: who has no token may do everything; on a loopback address only.
        backend: where drivers run: processes of this machine, or jobs of a Ray cluster.
        ray_address: of that cluster's dashboard, ``http://HEAD:8265``.
        merge_options: for each ``plait merge``, such as ``--address local``.
        slots: drivers at once.
        keep_days: after which jobs that are over are forgotten, with their logs; None for never.
        schemes: that specs may name.
        endpoints: whether specs may name the endpoints of stores.
        most_body: bytes of a request's body.
        requests_per_minute: of one token.
        cert, key: files, for TLS.
        root_path: where a proxy puts it.

    Raises:
        SpecInvalid: anonymous on an address that others reach; a backend without its address; a key without
            its certificate.
    """

    folder: Path
    database: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = PORT
    anonymous: bool = False
    backend: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    merge_options: tuple[str, ...] = ()
    slots: int = 2
    keep_days: float | None = None
    schemes: frozenset[str] = REMOTE
    endpoints: bool = False
    most_body: int = 1 << 20
    requests_per_minute: int = 6000
    cert: Path | None = None
    key: Path | None = None
    root_path: str = ""

    def __post_init__(self) -> None:
        if self.anonymous and not is_loopback(self.host):
            raise SpecInvalid(
                "access without a token is for this machine alone",
                where=self.host,
                expected="a loopback address, such as 127.0.0.1",
                hint="Create tokens with `plait token create`, and leave --anonymous out",
            )
        if self.key is not None and self.cert is None:
            raise SpecInvalid("a key without its certificate: there would be no TLS", where=str(self.key))
        if (self.backend == "ray") != (self.ray_address is not None):
            raise SpecInvalid(
                "the ray backend and the address of a cluster's dashboard belong together",
                hint="Write --backend ray --ray-address http://HEAD:8265",
            )

    @property
    def database_url(self) -> str:
        """Given, or SQLite in the folder."""
        return self.database or f"sqlite:///{self.folder / 'plait.db'}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host; a name other than localhost counts as one that all reach."""
    if re.fullmatch(r"localhost", host, re.IGNORECASE):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
