"""Every transition of a job, in one place.

A transition that is not here does not happen: :func:`check` says so, and a test tries all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from plait.jobs import JobState

Q, P, R, C = JobState.QUEUED, JobState.PLANNING, JobState.RUNNING, JobState.COMMITTING
S, F, X, U = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.UNKNOWN

TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = {
    # An attempt begins; or somebody cancels it first.
    Q: frozenset({P, X}),
    # The driver says how far it is. It may skip states, where a result was there already, or where several
    # of its messages are read at once. Back to queued: it was lost, or failed in a way that is worth a retry.
    P: frozenset({R, C, S, F, X, U, Q}),
    R: frozenset({C, S, F, X, U, Q}),
    # A driver that finds an upload aborted by somebody begins the next epoch.
    C: frozenset({R, S, F, X, U, Q}),
    S: frozenset(),
    # Somebody retries it.
    F: frozenset({Q}),
    X: frozenset({Q}),
    U: frozenset({Q}),
}

RETRYABLE: Final = frozenset(state for state in JobState if state.is_final and Q in TRANSITIONS[state])
"""What a person may retry."""


class WrongTransition(ValueError):
    """A job cannot go from there to here."""

    def __init__(self, before: JobState, after: JobState) -> None:
        self.before, self.after = before, after
        super().__init__(f"a job that is {before} cannot become {after}")


def may(before: JobState, after: JobState) -> bool:
    """Whether there is such a transition."""
    return after in TRANSITIONS[before]


def check(before: JobState, after: JobState) -> None:
    """Raise ``WrongTransition`` if there is no such transition."""
    if not may(before, after):
        raise WrongTransition(before, after)
