"""Tied weights: stored once, drawn once, and the same within each input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import reference
from tests.support.checkpoints import (
    Family,
    Tensor,
    make_family,
    of_values,
    random_tensor,
    read_model,
    write_model,
)
from tests.support.merging import fails, merge, model_files, plan_of, problems_of

EMBED, HEAD, BODY = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.weight"
TIED: dict[str, Any] = {"model_type": "llama", "tie_word_embeddings": True}


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, {EMBED: ("BF16", (64, 8)), BODY: ("BF16", (8, 8))}, config=TIED)


def store(family: Family, name: str, *names: str, config: dict[str, Any] = TIED, **other: Tensor) -> None:
    """Write a model again with its embedding under these names."""
    tensors = family.base if name == "base" else family.models[int(name[1:])]
    copies = dict.fromkeys(names, tensors[EMBED])
    write_model(family.root / name, {**copies, BODY: tensors[BODY], **other}, config=config)


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"m0": (EMBED, HEAD)},
        {"m0": (HEAD, EMBED), "m2": (EMBED, HEAD), "base": (EMBED, HEAD)},
        {"m0": (HEAD,)},
        {"m1": (HEAD,), "base": (EMBED, HEAD)},
        {"m0": (HEAD,), "m1": (HEAD,), "m2": (HEAD,), "base": (EMBED,)},
    ],
    ids=str,
)
def test_the_group_is_stored_once_under_the_embeddings_name(
    family: Family, held: dict[str, tuple[str, ...]]
) -> None:
    for name, names in held.items():
        store(family, name, *names)
    merge(family.spec())
    expected, _ = reference.expected(family.models, family.base)
    assert read_model(family.out) == expected


def test_copies_that_disagree_within_one_model_end_the_merge(family: Family) -> None:
    other = random_tensor("BF16", (64, 8), "other")
    store(family, "m1", EMBED, **{HEAD: other})
    with fails("tensor-mismatch") as failed:
        merge(family.spec())
    assert str(family.root / "m1") in str(failed.value)
    assert EMBED in str(failed.value)
    assert not model_files(family.out)


def test_one_bit_is_a_disagreement(family: Family) -> None:
    zeros = of_values("BF16", [0.0] * 512, (64, 8))
    family.models[2][EMBED] = of_values("BF16", [-0.0] * 512, (64, 8))
    store(family, "m2", EMBED, **{HEAD: zeros})
    with fails("tensor-mismatch"):
        merge(family.spec())
    assert not model_files(family.out)


@pytest.mark.parametrize("other", [("F32", (64, 8)), ("BF16", (32, 16)), ("BF16", (63, 8))], ids=str)
def test_a_copy_of_another_dtype_or_shape_is_a_problem_of_the_plan(
    family: Family, other: tuple[str, tuple[int, ...]]
) -> None:
    store(family, "m0", EMBED, HEAD)
    store(family, "m1", EMBED, **{HEAD: random_tensor(*other, "other")})
    (problem,) = problems_of(family.spec())
    assert problem.kind == "tensor-mismatch"
    assert str(family.root / "m1") in str(problem)
    assert HEAD in str(problem)


def test_what_config_does_not_tie_are_two_tensors(family: Family) -> None:
    for name in ("base", "m0", "m1", "m2"):
        store(family, name, EMBED, HEAD, config={"model_type": "llama", "tie_word_embeddings": False})
    merge(family.spec())
    found = read_model(family.out)
    assert list(found) == [EMBED, HEAD, BODY]
    own = [model[EMBED] for model in family.models]
    assert found[EMBED] == reference.select(EMBED, own, family.base[EMBED])[0]
    assert found[HEAD] == reference.select(HEAD, own, family.base[EMBED])[0]
    assert found[EMBED] != found[HEAD]


def test_a_tied_copy_that_only_the_base_stores_is_no_tensor_of_the_base_alone(family: Family) -> None:
    store(family, "base", EMBED, HEAD)
    assert [tensor.name for tensor in plan_of(family.spec()).job.tensors] == [EMBED, BODY]
    for name in ("m0", "m1", "m2"):
        store(family, name, EMBED, config={"model_type": "llama", "tie_word_embeddings": False})
    assert HEAD in str(problems_of(family.spec())[0])
