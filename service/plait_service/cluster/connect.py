"""Joins a Ray cluster, or starts a private one on this machine and ends it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from plait.errors import ClusterUnavailable, SpecInvalid

LOCAL: Final = "local"
AUTO: Final = "auto"
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_JOB: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""A variable that a Ray job's entrypoint has, and nobody else."""
_KNOCK: Final = 10.0
OBJECT_STORE: Final = 100 * 10**6
"""Bytes of a private cluster's object store: nothing but the plan passes through it."""


def default_address() -> str | None:
    """``auto`` inside a Ray job; else None: this process, without Ray."""
    return AUTO if _JOB in os.environ else None


def check_address(address: str) -> str:
    """The address, if it is one.

    Raises:
        SpecInvalid: it is none.
    """
    if address in (LOCAL, AUTO) or _HOST_PORT.fullmatch(address):
        return address
    raise SpecInvalid(
        "reading --address",
        expected="auto, local or HOST:PORT of a cluster's head",
        found=repr(address),
        hint="From elsewhere than one of its nodes: `ray job submit -- plait merge SPEC`",
    )


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Be a driver of a Ray cluster for the length of the block.

    Cost: a second to join; five to start a private cluster, and one to end it.

    Args:
        address: ``auto``, ``local`` or HOST:PORT.

    Raises:
        ClusterUnavailable: it is not reached, or does not start.
    """
    # Ray reads these as it is imported, and so do the processes that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if address == LOCAL:
        with _private_cluster():
            yield
    else:
        named = os.environ.get("RAY_ADDRESS", "") if address == AUTO else address
        if _HOST_PORT.fullmatch(named):
            _knock(named)
        with _connected(address=address):
            yield


def _knock(address: str) -> None:
    """Whether anybody listens there: Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK):
            return
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(
            "joining a Ray cluster",
            where=address,
            found=str(error),
            hint="Name the head's address and GCS port, 6379 by default",
        ) from error


@contextmanager
def _connected(**options: Any) -> Iterator[None]:
    import ray

    from plait_service.cluster.ray_errors import ray_errors

    where = str(options["address"])
    if ray.is_initialized():  # by whoever calls us as a library: the cluster is theirs
        yield
        return
    with ray_errors("joining a Ray cluster", where, RuntimeError, ValueError, OSError):
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _private_cluster() -> Iterator[None]:
    """On this machine, for this user alone, in a folder that goes away with it."""
    parent = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()  # sockets want short paths
    folder = Path(tempfile.mkdtemp(prefix="plait-ray-", dir=parent))
    if "ray" not in sys.modules:  # it looks at these once, as it is imported
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.pop("RAY_ADDRESS", None)
    try:
        with _connected(
            address=LOCAL,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            _temp_dir=str(folder / "ray"),
            _node_ip_address="127.0.0.1",
        ):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def no_cluster(seconds: float, wanted: str) -> ClusterUnavailable:
    """No worker for so long."""
    return ClusterUnavailable(
        f"no worker for {seconds:.0f} s",
        expected=wanted,
        hint="Look at `ray status`; finished parts are kept: run the same command again to carry on",
    )
