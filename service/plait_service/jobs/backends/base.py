"""What a runner asks of a place where drivers run."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from plait.jobs import JobKind

MOST_AT_ONCE: Final = 1 << 20
"""Bytes of a log that are read at once."""


class Life(enum.Enum):
    """Of a driver."""

    ABSENT = "nobody knows it: it was never started, or whoever knew it is gone"
    RUNNING = "it is at work, or about to be"
    ENDED = "it is over"


@dataclass(frozen=True, kw_only=True)
class Look:
    """A driver as it is now.

    Args:
        status: with which it exited; None if it was killed in a way that leaves none.
    """

    life: Life
    status: int | None = None


@dataclass(frozen=True, kw_only=True)
class DriverRequest:
    """What a driver is to do.

    Args:
        spec: validated.
        options: more arguments of `plait merge`.
    """

    kind: JobKind
    spec: Mapping[str, Any]
    overwrite: bool
    options: Sequence[str] = ()

    def arguments(self, spec: str) -> list[str]:
        """Of the ``plait`` command, for a spec in this file, or this spec itself."""
        more = ["--json"] if self.kind is JobKind.PLAN else ["--json", "--log-json", *self.options]
        return [self.kind.value, spec, *more, *(["--overwrite"] if self.overwrite else [])]

    def spec_text(self) -> str:
        """The spec as JSON, which is YAML too."""
        return json.dumps(self.spec, separators=(",", ":"))


class Backend(Protocol):
    """Runs drivers by names that the caller chooses. All methods may raise ``ServiceUnavailable``."""

    every: float
    """Seconds between two looks at drivers that run: as often as looking is cheap."""

    def start(self, handle: str, request: DriverRequest) -> None:
        """Start a driver, unless one of this name was started before; idempotent."""
        ...

    def look(self, handle: str) -> Look:
        """How it is."""
        ...

    def read(self, handle: str, offset: int) -> bytes:
        """What it has written from a byte on, as much as there is or is read at once."""
        ...

    def stop(self, handle: str, *, hard: bool) -> None:
        """Ask it to end; hard: end it. Idempotent; one that is over stays as it is."""
        ...

    def forget(self, handle: str) -> None:
        """Remove what is kept of one that is over."""
        ...
