"""The law of selection: chi-square against Eq. 3, exact and simulated. All seeds are fixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2_contingency, chisquare

from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.methods.base import TensorContext
from plait_workers.methods.selection import Select
from tests.workers.methods.reference import KEEP, integer_weights, law, simulate

MODELS = (1, 2, 3, 8, 20)
LEVELS = (0, 1, 4)
TOO_UNLIKELY = 1e-6
COUNT = 600_000
Array = npt.NDArray[Any]


def weights_of(k: int, kind: str) -> tuple[float, ...]:
    if kind == "equal" or k == 1:
        return (1.0,) * k
    return tuple(0.5 + (3 * i) % 5 for i in range(k - 1)) + ((0.0,) if k > 2 else (2.5,))


def groups_of(k: int) -> list[tuple[bool, ...]]:
    """Sets of sub-models that changed an element: nobody, one, some, all."""
    rng = np.random.default_rng(k)
    some = [tuple(bool(bit) for bit in rng.random(k) < share) for share in (0.2, 0.5, 0.5, 0.8)]
    single = [tuple(i == j for i in range(k)) for j in (0, k // 2, k - 1)]
    return list(dict.fromkeys([(False,) * k, *single, *some, (True,) * k]))


def drawn(
    k: int, weights: tuple[float, ...], n: int | str, groups: Sequence[tuple[bool, ...]]
) -> tuple[Array, Array]:
    """What each of many elements is taken from (KEEP for the base's value), and its group.

    Sub-model i has the value i + 1 where it changed an element; the base is 0 everywhere.
    """
    group = np.random.default_rng(5).integers(0, len(groups), COUNT)
    changed = np.array(groups)[group]
    inputs = [np.where(changed[:, i], i + 1, 0).astype(np.uint8) for i in range(k)]
    kind = DTYPES["U8"]
    context = TensorContext(
        name="law", inputs=(kind,) * k, base=kind, working=kind, output=kind, weights=weights, seed=2024
    )
    out, counters = np.zeros(COUNT, np.uint8), np.zeros(2 * k + 2, np.int64)
    merger = Select.model_validate({"resample": n}).merger(context)
    merger.merge(inputs, np.zeros(COUNT, np.uint8), out, 0, counters)
    return out.astype(np.int64) - 1, group


def probabilities(weights: tuple[float, ...]) -> list[Fraction]:
    w = integer_weights(weights)
    return [Fraction(each, sum(w)) for each in w]


def p_value(counts: Counter[int], expected: dict[int, Fraction]) -> float:
    """How likely counts as far off as these are. What cannot happen must not."""
    possible = {outcome: float(share) for outcome, share in expected.items() if share}
    assert set(counts) <= set(possible)
    if len(possible) == 1:
        return 1.0
    found = np.array([counts[outcome] for outcome in possible])
    shares = np.array(list(possible.values()))
    return float(chisquare(found, shares / shares.sum() * found.sum()).pvalue)


@pytest.mark.parametrize("kind", ["equal", "unequal"])
@pytest.mark.parametrize("n", LEVELS)
@pytest.mark.parametrize("k", MODELS)
def test_is_that_of_equation_three(k: int, n: int, kind: str) -> None:
    weights, groups = weights_of(k, kind), groups_of(k)
    source, group = drawn(k, weights, n, groups)
    for index, changed in enumerate(groups):
        expected = law(probabilities(weights), changed, n)
        assert sum(expected.values()) == 1
        assert p_value(Counter(source[group == index].tolist()), expected) > TOO_UNLIKELY


@pytest.mark.parametrize("kind", ["equal", "unequal"])
@pytest.mark.parametrize("k", MODELS)
def test_unlimited_is_the_limit(k: int, kind: str) -> None:
    weights, groups = weights_of(k, kind), groups_of(k)
    source, group = drawn(k, weights, "unlimited", groups)
    p = probabilities(weights)
    for index, changed in enumerate(groups):
        mass = sum((each for each, c in zip(p, changed, strict=True) if c), Fraction(0))
        expected = {i: p[i] / mass for i in range(k) if changed[i]} if mass else {KEEP: Fraction(1)}
        assert p_value(Counter(source[group == index].tolist()), expected) > TOO_UNLIKELY


@pytest.mark.parametrize("kind", ["equal", "unequal"])
@pytest.mark.parametrize("n", LEVELS)
@pytest.mark.parametrize("k", MODELS)
def test_as_eq_3_when_it_is_played(k: int, n: int, kind: str) -> None:
    """Two samples: ours, and one from the loop of draws that the paper writes down."""
    weights, groups = weights_of(k, kind), groups_of(k)
    source, group = drawn(k, weights, n, groups)
    p = [float(each) for each in probabilities(weights)]
    rng = np.random.default_rng(17)
    for index, changed in list(enumerate(groups))[-3:]:
        ours = Counter(source[group == index].tolist())
        played = Counter(simulate(rng, p, changed, n, 5_000).tolist())
        assert sum(ours.values()) > 5_000
        outcomes = sorted({outcome for outcome in {*ours, *played} if ours[outcome] + played[outcome] >= 20})
        if len(outcomes) > 1:
            table = [[counts[outcome] for outcome in outcomes] for counts in (ours, played)]
            assert chi2_contingency(table).pvalue > TOO_UNLIKELY
        else:
            assert [ours.most_common(1)[0][0]] == [played.most_common(1)[0][0]] == outcomes


def test_analytic_form_is_the_walk_over_levels() -> None:
    """P(keep) = (1 - P)**(n + 1), P(i) = (1 - P(keep)) p_i / P: the one-pass form is exact."""
    for k in MODELS:
        for kind in ("equal", "unequal"):
            p = probabilities(weights_of(k, kind))
            for changed in groups_of(k):
                mass = sum((each for each, c in zip(p, changed, strict=True) if c), Fraction(0))
                for n in (*LEVELS, 64):
                    keep = (1 - mass) ** (n + 1)
                    walked = law(p, changed, n)
                    assert walked.pop(KEEP) == keep
                    assert walked == {i: (1 - keep) * p[i] / mass for i in walked if mass} or not mass


def test_would_notice_another_law() -> None:
    """The counts of one n are far from the law of the next, and equal from unequal weights."""
    changed = (True, True, False, False, False, False, False, False)
    groups = [changed]
    for n in LEVELS:
        source, _ = drawn(8, (1.0,) * 8, n, groups)
        counts = Counter(source.tolist())
        p = probabilities((1.0,) * 8)
        assert p_value(counts, law(p, changed, n)) > TOO_UNLIKELY > p_value(counts, law(p, changed, n + 1))
        skewed = probabilities((1.05,) + (1.0,) * 7)
        assert p_value(counts, law(skewed, changed, n)) < TOO_UNLIKELY


@pytest.mark.parametrize("distance", [1, 2, 4096])
def test_elements_are_independent(distance: int) -> None:
    """Neighbours share a block of Philox, elements of two tiles a position: neither shows in the result."""
    source, _ = drawn(4, (1.0,) * 4, 1, [(True, True, True, False)])
    start = np.arange(0, COUNT - distance, 2 * distance) if distance > 1 else np.arange(0, COUNT - 1, 2)
    table = np.zeros((4, 4))
    np.add.at(table, (source[start] + 1, source[start + distance] + 1), 1)
    assert chi2_contingency(table).pvalue > TOO_UNLIKELY
