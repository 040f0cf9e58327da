"""botocore's client, set up as a merge needs it, and how its requests are made."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.utils import parse_timestamp

from plait import __version__
from plait.spec_storage import StoreOptions
from plait_workers.storage.s3.direct import Direct

CONNECTIONS: Final = 1024
"""Connections kept: answers that are being read hold one each, and do not count as under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """botocore's client, and the short way beside it."""

    ordinary: Any
    direct: Direct

    def ask(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One request, by the short way where it leads.

        Raises:
            Exception: whatever botocore and the network raise.
        """
        answer = self.direct.ask(operation, arguments)
        if answer is None:
            body = arguments.get("Body")
            if isinstance(body, io.IOBase):
                body.seek(0)  # the short way may have sent it
            answer = getattr(self.ordinary, operation)(**arguments)
            self.direct.learn(operation, arguments)
        return answer


def make_client(options: StoreOptions, *, timeout: float) -> Client:
    """A client for all threads of this process. Takes a fifth of a second; asks nobody.

    Args:
        timeout: seconds without a byte.
    """
    session = botocore.session.get_session()
    # botocore's own takes a third of the time of a HEAD, as it tries every way to write a date.
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_parse_time)
    style = _addressing(options, session)
    config = Config(
        # One layer of retries: ours, as botocore's does not know what a lost answer means here.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=min(timeout, 10.0),
        read_timeout=timeout,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        # Parts carry the checksum that the merge has anyway; nothing is hashed twice.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False, **({"addressing_style": style} if style else {})},
        user_agent=f"plait/{__version__}",
    )
    client = session.create_client(
        "s3", region_name=options.region, endpoint_url=options.endpoint_url, config=config
    )
    trusted = session.get_config_variable("ca_bundle")
    direct = Direct(client, timeout=timeout, ca_bundle=trusted, parse_time=_parse_time)
    return Client(ordinary=client, direct=direct)


def _parse_time(value: Any) -> datetime:
    """The two ways in which S3 writes a time, in a body and in a header; any other is botocore's."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value) if value[:1].isdigit() else parsedate_to_datetime(value)
        except ValueError:
            pass
        else:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    parsed: datetime = parse_timestamp(value)
    return parsed


def _addressing(options: StoreOptions, session: Any) -> str | None:
    """Servers of one's own rarely have a host name for each bucket; AWS has."""
    if options.path_style is not None:
        return "path" if options.path_style else "virtual"
    profile = session.get_scoped_config()
    named = (
        options.endpoint_url,
        os.environ.get("AWS_ENDPOINT_URL_S3"),
        os.environ.get("AWS_ENDPOINT_URL"),
        profile.get("endpoint_url"),
        profile.get("services"),
    )
    endpoint = next((value for value in named if value), None)
    return "path" if endpoint and "amazonaws.com" not in str(endpoint) else None
