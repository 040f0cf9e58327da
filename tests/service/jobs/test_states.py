"""All pairs of states: what may follow what, and nothing else."""

from __future__ import annotations

from itertools import product

import pytest

from plait.jobs import JobState
from plait_service.jobs import states

Q, P, R, C = JobState.QUEUED, JobState.PLANNING, JobState.RUNNING, JobState.COMMITTING
S, F, X, U = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.UNKNOWN

ALLOWED = {
    *((Q, P), (Q, X)),
    *((P, R), (P, C), (R, C), (C, R)),
    *product((P, R, C), (S, F, X, U, Q)),
    *((F, Q), (X, Q), (U, Q)),
}


@pytest.mark.parametrize(("before", "after"), list(product(JobState, JobState)))
def test_every_pair(before: JobState, after: JobState) -> None:
    assert states.may(before, after) == ((before, after) in ALLOWED)
    if (before, after) in ALLOWED:
        states.check(before, after)
    else:
        with pytest.raises(states.WrongTransition, match=f"{before} cannot become {after}"):
            states.check(before, after)


def test_what_is_over_is_retried_or_stays() -> None:
    assert {F, X, U} == states.RETRYABLE
    assert {state for state in JobState if state.is_final} == {S, F, X, U}
    assert {state for state in JobState if state.is_active} == {P, R, C}
    assert not states.TRANSITIONS[S]


def test_every_state_is_reached_and_left() -> None:
    reached, front = {Q}, [Q]
    while front:
        for after in states.TRANSITIONS[front.pop()] - reached:
            reached.add(after)
            front.append(after)
    assert reached == set(JobState)
