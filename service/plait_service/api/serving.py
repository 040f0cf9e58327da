"""Runs the service on uvicorn, until a signal ends it."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from plait.errors import SpecInvalid
from plait_service.api.app import make_app
from plait_service.api.feeds import Feeds
from plait_service.api.settings import Settings, is_loopback

GRACE: Final = 5
"""Seconds that open requests have to end."""
_SWITCH: Final = 0.0005
"""Seconds for which a thread keeps the interpreter while others want it: with Python's 5 ms, short requests
wait for each other."""


def serve(settings: Settings, *, proxies: Sequence[str], debug: bool, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        proxies: addresses whose forwarding headers are believed.
        say: told one line once it listens, and what to do about tokens.

    Raises:
        SpecInvalid: a setting is wrong, the address cannot be had, another service uses the folder.
        StoreUnavailable: the database is not reached.
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for name in (
        "httpx",
        "httpcore",
        "botocore",
        "urllib3",
        "alembic",
    ):  # they say too much, and of everything
        logging.getLogger(name).setLevel(logging.WARNING)
    app = make_app(settings)
    config = _config(app, settings, proxies)
    services = app.state.services
    with _alone(settings.folder), _bound(settings) as bound:
        services.database.upgrade()  # before it listens, so that what is wrong is said as an error
        host, port = bound.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        say(f"plait serves {'https' if settings.cert else 'http'}://{shown}:{port}{settings.root_path}")
        if settings.cert is None and not is_loopback(settings.host):
            say("without TLS the network sees tokens: give --cert and --key, or put a proxy before it")
        if settings.anonymous:
            say("without tokens: whoever reaches this machine's loopback may submit")
        elif not services.tokens.list():
            say(f"no token yet: plait token create NAME --role admin --database {_shown(settings)}")
        server = _Server(config, services.feeds)
        # uvicorn passes a signal on once it is done; a service that was asked to end has not failed.
        signal.signal(signal.SIGTERM, server.handle_exit)
        # A full collection looks at all that was imported, for 90 ms in which nothing is answered.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(_SWITCH)
        server.run(sockets=[bound])
    if not server.started:
        raise SpecInvalid(
            "the service does not start", where=str(settings.folder), hint="The log above says why"
        )


class _Server(uvicorn.Server):
    """Whoever watches is let go as soon as the server is to end, which waits for them."""

    def __init__(self, config: uvicorn.Config, feeds: Feeds) -> None:
        super().__init__(config)
        self._feeds = feeds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._feeds.end()


def _config(app: FastAPI, settings: Settings, proxies: Sequence[str]) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        ssl_certfile=settings.cert,
        ssl_keyfile=settings.key,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_graceful_shutdown=GRACE,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
    )
    try:
        config.load()  # now, so that what is wrong with the certificate is said as an error
    except OSError as error:  # which that of the library is, too
        raise SpecInvalid(
            "the certificate and its key",
            where=str(settings.cert),
            expected="a chain and its key, as PEM",
            found=type(error).__name__,
        ) from None
    return config


@contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """A socket at the address, for the length of the block."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        # asyncio turns Nagle's delay off for what it knows to be TCP; 40 ms an answer otherwise.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
    except OSError as error:
        raise SpecInvalid(
            "the address cannot be had", where=f"{settings.host}:{settings.port}", found=error.strerror
        ) from None
    with found:
        yield found


def _shown(settings: Settings) -> str:
    """The database's URL without a password."""
    from sqlalchemy import make_url

    return make_url(settings.database_url).render_as_string(hide_password=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One service at a time in a folder: two would start a job's driver twice."""
    descriptor = os.open(folder / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecInvalid(
                "another service uses this folder",
                where=str(folder),
                hint="Stop it, or name another --folder",
            ) from None
        yield
    finally:
        os.close(descriptor)
