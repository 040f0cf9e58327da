"""What can go wrong between a client and S3, and what fits which request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tests.support.s3_labels import Label


class Kind(StrEnum):
    """A fault. Those "before" keep the request from the server; those "after" only lose its answer."""

    INTERNAL = "500"
    SLOW_DOWN = "503 SlowDown"
    RESET = "connection reset"
    TIMEOUT = "no answer"
    EXPIRED = "400 ExpiredToken"
    DENIED = "403 AccessDenied"
    INTERNAL_AFTER = "500 after the effect"
    RESET_AFTER = "connection reset after the effect"
    TIMEOUT_AFTER = "no answer after the effect"
    STALL = "part of a body, then silence"
    TRUNCATED = "part of a body, then the end"
    FLIPPED = "flipped bits on the way to us"
    FLIPPED_UP = "flipped bits on the way to the store"
    SHORT = "fewer bytes than asked for"
    WHOLE = "the whole object in place of a range"
    WRONG_RANGE = "another range than asked for"
    ERROR_IN_200 = "an error in a 200"
    ERROR_IN_200_AFTER = "an error in a 200 after the effect"

    @property
    def spares_the_server(self) -> bool:
        """The server never hears of the request."""
        return self in _BEFORE


_BEFORE = {
    *(Kind.INTERNAL, Kind.SLOW_DOWN, Kind.RESET, Kind.TIMEOUT),
    *(Kind.EXPIRED, Kind.DENIED, Kind.ERROR_IN_200),
}
_ALWAYS = [Kind.INTERNAL, Kind.SLOW_DOWN, Kind.RESET, Kind.TIMEOUT]
_AFTER = [Kind.INTERNAL_AFTER, Kind.RESET_AFTER, Kind.TIMEOUT_AFTER]
_BODY = [Kind.STALL, Kind.TRUNCATED]
_RANGE = [Kind.SHORT, Kind.WHOLE, Kind.WRONG_RANGE]
OPERATIONS = {
    "GetObject": [*_BODY, Kind.FLIPPED],
    "HeadObject": [],
    "PutObject": [*_AFTER, Kind.FLIPPED_UP],
    "DeleteObject": _AFTER,
    "CreateMultipartUpload": [*_AFTER, *_BODY],
    "UploadPart": [*_AFTER, Kind.FLIPPED_UP],
    "CompleteMultipartUpload": [*_AFTER, *_BODY, Kind.ERROR_IN_200, Kind.ERROR_IN_200_AFTER],
    "AbortMultipartUpload": _AFTER,
    "ListParts": _BODY,
    "ListMultipartUploads": _BODY,
    "ListObjectsV2": _BODY,
}
"""What we ask of S3, and what can go wrong with it alone."""
WRITES = [name for name, kinds in OPERATIONS.items() if Kind.RESET_AFTER in kinds]
"""Operations that change something."""


@dataclass(frozen=True)
class Traffic:
    """A request that was answered: the status, and the bytes of both bodies."""

    status: int
    sent: int
    received: int

    def allows(self, kind: Kind) -> bool:
        """Whether there is anything to damage."""
        if kind is Kind.FLIPPED_UP:
            return self.sent > 0
        if kind in _BODY:
            return self.received > 0
        if kind is Kind.FLIPPED:
            return self.status in (200, 206) and self.received > 0
        if kind in _RANGE:
            return self.status == 206 and self.received > 1
        return True


def kinds_for(label: Label, traffic: Traffic | None = None) -> list[Kind]:
    """All faults that can befall a request, given what passes if none does."""
    ranged = _RANGE if label.operation == "GetObject" and label.detail else []
    kinds = [*_ALWAYS, *OPERATIONS[label.operation], *ranged]
    return [kind for kind in kinds if traffic is None or traffic.allows(kind)]


@dataclass(frozen=True, order=True)
class Fault:
    """Something that goes wrong once, or ``times`` in a row, with requests of one label."""

    label: Label
    kind: Kind
    times: int = 1

    def __str__(self) -> str:
        return f"{self.kind} at {self.label}" + (f" x{self.times}" if self.times > 1 else "")

    def strikes(self, label: Label) -> bool:
        """Whether this request is one of those."""
        first = self.label
        same = (label.operation, label.key, label.detail) == (first.operation, first.key, first.detail)
        return same and first.count <= label.count < first.count + self.times
