"""Every error that Plait raises, in one tree.

::

    PlaitError
    ├── InputError                 change the spec, the command or the sources, then run again (exit 2)
    │   ├── SpecInvalid            spec-invalid          a key, a type, a value of the spec or the command
    │   ├── SourceMissing          source-missing        a model, a file or a tensor file that is not there
    │   ├── CheckpointMalformed    checkpoint-malformed  a file that breaks its own format
    │   ├── CheckpointUnsupported  checkpoint-unsupported  a format that is not read (pickle)
    │   ├── TensorMismatch         tensor-mismatch       tensors that cannot be merged with each other
    │   ├── QuantizedSource        quantized-source      quantised codes, which have no meaningful merge
    │   ├── OutputExists           output-exists         something lies where the result would go
    │   └── BudgetTooSmall         budget-too-small      --memory is below one part and its steps
    ├── PlanRejected               (kind of its first problem)  all problems of a plan, together (exit 2)
    ├── ConflictError              somebody else acts on the same objects (exit 1)
    │   ├── SourceChanged          source-changed        a source was replaced while it was read
    │   ├── SourceCorrupt          source-corrupt        a source does not match its own checksum
    │   ├── OutputClaimed          output-claimed        another merge holds the output
    │   ├── UploadGone             upload-gone           an upload was completed or aborted meanwhile
    │   └── OutputCorrupt          output-corrupt        a result that does not match its manifest
    ├── StoreError                 the store said no, or nothing (exit 1)
    │   ├── AccessDenied           access-denied
    │   ├── AuthExpired            auth-expired
    │   ├── StoreUnavailable       store-unavailable     worth a retry
    │   ├── StoreRefused           store-refused         it said no, for a reason of its own
    │   ├── StoreUnsuitable        store-unsuitable      it cannot keep the promises that a merge needs
    │   └── NoSpace                no-space
    ├── ClusterError               machines that were to do the work (exit 1)
    │   ├── ClusterUnavailable     cluster-unavailable   not reached, or no worker for too long; worth a retry
    │   ├── ClusterUnsuitable      cluster-unsuitable    a worker that could not make the same bytes
    │   ├── WorkerLost             worker-lost           a part that workers die of
    │   └── DriverLost             driver-lost           a driver that ended without a word; worth a retry
    ├── ServiceError               the job service said no, or nothing (exit 1)
    │   ├── NotFound               not-found             a job, schedule or token that is not there
    │   ├── WrongState             wrong-state           what cannot be done to a job as it is now
    │   ├── IdempotencyConflict    idempotency-conflict  the key was used for something else
    │   ├── Unauthenticated        unauthenticated       no token, or none that is valid
    │   ├── Forbidden              forbidden             a token that may not do this, or not there
    │   ├── TooLarge               too-large             more than the service reads
    │   ├── TooManyRequests        too-many-requests     worth a retry, after a while
    │   └── ServiceUnavailable     service-unavailable   not reached, or not now; worth a retry
    ├── Cancelled                  cancelled             stopped by a person or a signal (exit 130)
    ├── CommitUnknown              commit-unknown        the commit's outcome is not known (exit 3)
    └── InternalError              internal              a bug of ours: please report it (exit 1)

A ``kind`` is stable: programs match on it, it is never renamed and never reused. A message says
what was being done, where, what was expected and found, and what to do next. What a library
raises is mapped to this tree at the boundary; no message carries a secret.

This module imports nothing of Plait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar


class PlaitError(Exception):
    """The root of the tree; never raised itself.

    Args:
        doing: what was being done, as a sentence without a full stop.
        where: URI, file, tensor or line that it was done to.
        expected: what should have been there.
        found: what was there instead.
        hint: what to do next.
    """

    kind: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        doing: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.doing = doing
        self.where = where
        self.expected = expected
        self.found = found
        self.hint = hint
        super().__init__(doing)

    def __str__(self) -> str:
        text = self.doing if self.where is None else f"{self.where}: {self.doing}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}" if self.expected is None else f", found {self.found}"
        if self.hint is not None:
            text += f". {self.hint}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries whole: keyword fields included."""
        return (_rebuild, (type(self), dict(self.__dict__)))

    def to_json(self) -> dict[str, object]:
        """The error as a JSON object: ``kind``, ``message`` and the fields that are set."""
        fields = {name: getattr(self, name) for name in ("where", "expected", "found", "hint")}
        return {
            "kind": self.kind,
            "message": str(self),
            "retryable": self.retryable,
            **{name: value for name, value in fields.items() if value is not None},
        }


def _rebuild(cls: type[PlaitError], state: dict[str, object]) -> PlaitError:
    error = cls.__new__(cls)
    Exception.__init__(error, state.get("doing", ""))
    error.__dict__.update(state)
    return error


class InputError(PlaitError):
    """What was asked for cannot be done as it was asked."""

    exit_status = 2


class SpecInvalid(InputError):
    """A key, a type or a value of the spec, or of the command, is wrong."""

    kind = "spec-invalid"


class SourceMissing(InputError):
    """A model, or a file that a model names, is not there."""

    kind = "source-missing"


class CheckpointMalformed(InputError):
    """A checkpoint's file breaks its own format."""

    kind = "checkpoint-malformed"


class CheckpointUnsupported(InputError):
    """A checkpoint is in a format that Plait does not read, pickle above all."""

    kind = "checkpoint-unsupported"


class TensorMismatch(InputError):
    """Tensors of the sources cannot be merged with each other."""

    kind = "tensor-mismatch"


class QuantizedSource(InputError):
    """A source is quantised; a merge of codes means nothing."""

    kind = "quantized-source"


class OutputExists(InputError):
    """Something lies where the result would go."""

    kind = "output-exists"


class BudgetTooSmall(InputError):
    """The memory budget does not hold one part and the steps that fill it."""

    kind = "budget-too-small"


class PlanRejected(PlaitError):
    """All problems of a spec or a plan, found together.

    Args:
        problems: at least one error; the first gives this error its kind.
    """

    exit_status = 2

    def __init__(self, problems: Iterable[PlaitError]) -> None:
        self.problems: Sequence[PlaitError] = tuple(problems)
        if not self.problems:
            raise ValueError("a rejected plan needs at least one problem")
        super().__init__(f"{len(self.problems)} problem(s)")

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The kind of the first problem."""
        return self.problems[0].kind

    def __str__(self) -> str:
        return "\n".join(f"{problem.kind}: {problem}" for problem in self.problems)

    def to_json(self) -> dict[str, object]:
        """The first problem's kind and every problem."""
        return {
            "kind": self.kind,
            "message": str(self),
            "retryable": False,
            "problems": [problem.to_json() for problem in self.problems],
        }


class ConflictError(PlaitError):
    """Somebody else acts, or acted, on the same objects."""


class SourceChanged(ConflictError):
    """A source was replaced, cut or deleted while it was read."""

    kind = "source-changed"


class SourceCorrupt(ConflictError):
    """A source does not match the checksum that its store keeps."""

    kind = "source-corrupt"


class OutputClaimed(ConflictError):
    """Another merge holds the output."""

    kind = "output-claimed"
    retryable = True


class UploadGone(ConflictError):
    """An upload was completed or aborted meanwhile, by somebody else."""

    kind = "upload-gone"


class OutputCorrupt(ConflictError):
    """A result does not match its manifest, or not what its sources give."""

    kind = "output-corrupt"


class StoreError(PlaitError):
    """A store refused, or did not answer."""


class AccessDenied(StoreError):
    """The store refused the caller."""

    kind = "access-denied"


class AuthExpired(StoreError):
    """The credentials were good, and are not any more."""

    kind = "auth-expired"
    retryable = True


class StoreUnavailable(StoreError):
    """The store did not answer, or said that it cannot now."""

    kind = "store-unavailable"
    retryable = True


class StoreRefused(StoreError):
    """The store understood, and said no for a reason of its own; asking again gives the same."""

    kind = "store-refused"


class StoreUnsuitable(StoreError):
    """The store lacks something that a safe merge needs."""

    kind = "store-unsuitable"


class NoSpace(StoreError):
    """The store is full."""

    kind = "no-space"


class ClusterError(PlaitError):
    """Something is wrong with the machines that were to do the work."""


class ClusterUnavailable(ClusterError):
    """The cluster is not reached, or had no worker to give for too long; finished parts are kept."""

    kind = "cluster-unavailable"
    retryable = True


class ClusterUnsuitable(ClusterError):
    """A worker has another version, or does not see what the driver sees."""

    kind = "cluster-unsuitable"


class WorkerLost(ClusterError):
    """Workers died again and again while they did one part."""

    kind = "worker-lost"


class DriverLost(ClusterError):
    """A job's driver was killed, or its machine was; finished parts are kept."""

    kind = "driver-lost"
    retryable = True


class ServiceError(PlaitError):
    """The job service refused, or did not answer."""


class NotFound(ServiceError):
    """There is no such thing, or it belongs to another team."""

    kind = "not-found"


class WrongState(ServiceError):
    """A job, as it is now, does not allow this."""

    kind = "wrong-state"


class IdempotencyConflict(ServiceError):
    """An idempotency key was used before, for something else."""

    kind = "idempotency-conflict"


class Unauthenticated(ServiceError):
    """No token was given, or none that is valid."""

    kind = "unauthenticated"


class Forbidden(ServiceError):
    """The token does not allow this, or not at this place."""

    kind = "forbidden"


class TooLarge(ServiceError):
    """A request has more bytes than the service reads."""

    kind = "too-large"


class TooManyRequests(ServiceError):
    """Requests come faster than the service allows."""

    kind = "too-many-requests"
    retryable = True


class ServiceUnavailable(ServiceError):
    """The service is not reached, or cannot answer now."""

    kind = "service-unavailable"
    retryable = True


class Cancelled(PlaitError):
    """A person or a signal stopped the merge; finished parts are kept."""

    kind = "cancelled"
    exit_status = 130


class CommitUnknown(PlaitError):
    """The commit may or may not have happened; nothing was deleted."""

    kind = "commit-unknown"
    exit_status = 3


class InternalError(PlaitError):
    """A bug of Plait's own."""

    kind = "internal"
