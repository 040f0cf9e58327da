"""When a place gets its next worker, and how much memory that takes."""

from __future__ import annotations

from plait_service.cluster.pool import FIRST_PAUSE, LONGEST_PAUSE, Place


def test_one_death_is_no_want_of_memory_but_two_without_a_result_are() -> None:
    """A kernel that kills for memory tells nobody."""
    place = Place("node", None)
    place.lost(0.0, has_done=False, died=True, out_of_memory=False)
    assert place.shrink == 0
    place.lost(0.0, has_done=False, died=True, out_of_memory=False)
    assert place.shrink == 1
    place.lost(0.0, has_done=True, died=True, out_of_memory=False)
    assert place.shrink == 1


def test_a_death_that_says_why_counts_at_once() -> None:
    place = Place("node", None)
    place.lost(0.0, has_done=True, died=False, out_of_memory=True)
    assert place.shrink == 1


def test_nodes_that_leave_cost_no_memory() -> None:
    place = Place("node", None)
    for _ in range(3):
        place.lost(0.0, has_done=False, died=False, out_of_memory=False)
    assert place.shrink == 0


def test_the_next_life_waits_longer_after_each_that_did_nothing() -> None:
    place = Place("node", None)
    waits = []
    for _ in range(12):
        place.lost(100.0, has_done=False, died=True, out_of_memory=False)
        waits.append(place.due - 100.0)
    assert waits == sorted(waits)
    assert waits[0] == 2 * FIRST_PAUSE
    assert waits[-1] == LONGEST_PAUSE
    place.lost(100.0, has_done=True, died=True, out_of_memory=False)
    assert place.due - 100.0 == FIRST_PAUSE
