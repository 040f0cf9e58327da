"""Memory budgets: what fits is fitted, what does not is refused, and the container's limit counts."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import BudgetTooSmall
from plait_service import budget as budgets
from plait_service.budget import MIN_STEP, budget_of, default_memory
from plait_service.prepare import Prepared
from plait_workers.storage.local import LocalStore
from tests.support.checkpoints import make_family
from tests.support.merging import prepared_of

PART = 64 << 10


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    family = make_family(tmp_path_factory.mktemp("budget"), {"a": ("BF16", (200, 300))})
    return prepared_of(family.spec(part_size=PART))


@given(memory=st.integers(0, 1 << 24), threads=st.integers(1, 64))
def test_the_buffers_stay_within_the_memory_or_it_is_refused(
    prepared: Prepared, memory: int, threads: int
) -> None:
    job = prepared.plan.job
    least = PART + len(job.sources) * MIN_STEP
    if memory < least:
        with pytest.raises(BudgetTooSmall, match="--memory"):
            budget_of(job, prepared.output, memory=memory, threads=threads)
        return
    if memory < 2 * least:  # the buffers' own margins decide
        return
    budget = budget_of(job, prepared.output, memory=memory, threads=threads)
    assert budget.peak <= memory
    assert 1 <= budget.threads <= threads
    assert budget.step_bytes >= MIN_STEP


def test_more_memory_never_means_fewer_threads(prepared: Prepared) -> None:
    threads = [
        budget_of(prepared.plan.job, prepared.output, memory=memory, threads=8).threads
        for memory in range(1 << 20, 1 << 24, 1 << 18)
    ]
    assert threads == sorted(threads)
    assert threads[-1] == 8


def test_what_sources_hold_while_they_are_read_counts(prepared: Prepared) -> None:
    class Holding(LocalStore):
        @property
        def scan_bytes(self) -> int:
            return 1 << 20

    job, stores = prepared.plan.job, [Holding(Path(store.uri)) for store in prepared.stores]
    without = budget_of(job, prepared.output, memory=1 << 24, threads=8)
    held = budget_of(job, prepared.output, memory=1 << 24, threads=8, stores=stores)
    assert held.peak <= 1 << 24
    assert held.threads < without.threads
    with pytest.raises(BudgetTooSmall):
        budget_of(job, prepared.output, memory=len(stores) << 20, threads=1, stores=stores)


def test_the_default_is_a_quarter_of_what_the_container_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(budgets, "CGROUPS", ((str(limit), str(used)),))
    limit.write_text("1000000000\n")
    used.write_text("200000000\n")
    assert default_memory() == 200_000_000
    limit.write_text("max\n")
    assert default_memory() == pytest.approx(min(4 * 10**9, psutil.virtual_memory().available // 4), rel=0.2)
