"""Ray's exceptions as errors of ours, and what can be known of a worker's end."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from plait.errors import ClusterError, ClusterUnavailable, ClusterUnsuitable, PlaitError


class End(enum.Enum):
    """How a worker ended, or did not."""

    NOT = "it may still be alive"
    NODE = "its node is gone"
    MEMORY = "out of memory"
    DIED = "its process died"


_OF_MEMORY = re.compile(
    r"out[- ]of[- ]memory|\bOOM\b|running low on memory|memory (?:usage )?threshold", re.I
)
_GUESSES = re.compile(r"Some common causes include|There are some potential root causes", re.I)
"""From here on Ray lists whatever ends processes, memory among it, because it does not know."""
_OF_NODE = re.compile(r"node (?:has )?(?:died|was terminated|is dead)|its node|raylet", re.I)


def end_of(error: BaseException) -> End:
    """What a failed call says about its worker."""
    if isinstance(error, OutOfMemoryError):
        return End.MEMORY
    if isinstance(error, NodeDiedError | ActorUnschedulableError):
        return End.NODE
    if isinstance(error, ActorUnavailableError) or not isinstance(error, RayActorError):
        return End.NOT
    text = _GUESSES.split(str(error), maxsplit=1)[0]
    if _OF_MEMORY.search(text):
        return End.MEMORY
    return End.NODE if error.preempted or _OF_NODE.search(text) else End.DIED


def first_line(error: BaseException) -> str:
    """What an exception says, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def cause_of(error: BaseException) -> PlaitError | None:
    """The error of ours that a call raised on the worker, if it raised one."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return cause if isinstance(cause, PlaitError) else None


def unsuitable(error: BaseException, where: str) -> ClusterError:
    """A worker that could not even begin."""
    return ClusterUnsuitable(
        "a worker cannot begin",
        where=where,
        found=first_line(error),
        hint="Install the same Plait, Ray and Python on all nodes",
    )


@contextmanager
def ray_errors(doing: str, where: str, *others: type[Exception]) -> Iterator[None]:
    """What Ray raises in the block is ``ClusterUnavailable``; ``others`` are what it raises there, too."""
    try:
        yield
    except PlaitError:
        raise
    except Exception as error:
        if not isinstance(error, (RayError, ConnectionError, *others)):
            raise
        raise ClusterUnavailable(
            doing, where=where, found=first_line(error), hint="Look at `ray status` there"
        ) from error
