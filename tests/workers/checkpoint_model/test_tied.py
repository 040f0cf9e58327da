from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plait_workers.checkpoint.model import Checkpoint, load_checkpoint
from plait_workers.checkpoint.tied import tied_group, ties_weights
from plait_workers.storage.local import LocalStore
from tests.support.checkpoints import random_tensor, write_model

TIED: dict[str, Any] = {"tie_word_embeddings": True}
SHAPE = (8, 4)


def checkpoint(folder: Path, *names: str, config: dict[str, Any] | None = TIED, **shapes: Any) -> Checkpoint:
    """A model with tensors of one shape under these names, and of others under ``other``."""
    tensors = {name: random_tensor("F32", SHAPE, name) for name in names}
    tensors |= {name: random_tensor("F32", shape, name) for name, shape in shapes.get("other", {}).items()}
    write_model(folder, {**tensors, "body": random_tensor("F32", SHAPE, "body")}, config=config)
    return load_checkpoint(LocalStore(folder))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"tie_word_embeddings": True}, True),
        ({"text_config": {"tie_word_embeddings": True}}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": "true"}, False),
        ({"tie_word_embeddings": 1}, False),
        ({"text_config": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_config_decides(tmp_path: Path, config: dict[str, Any] | None, expected: bool) -> None:
    assert ties_weights(checkpoint(tmp_path, "body", config=config)) is expected


@pytest.mark.parametrize(
    ("name", "copies"),
    [
        ("model.embed_tokens.weight", ["lm_head.weight"]),
        ("model.language_model.embed_tokens.weight", ["lm_head.weight"]),
        ("transformer.wte.weight", ["lm_head.weight"]),
        ("gpt_neox.embed_in.weight", ["embed_out.weight"]),
        ("tok_embeddings.weight", ["output.weight"]),
        ("bert.embeddings.word_embeddings.weight", ["cls.predictions.decoder.weight"]),
        ("shared.weight", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]),
        ("model.shared.weight", ["model.encoder.embed_tokens.weight", "lm_head.weight"]),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_names_of_the_families(tmp_path: Path, name: str, copies: list[str], reverse: bool) -> None:
    names = [name, *copies][:: -1 if reverse else 1]
    assert tied_group([checkpoint(tmp_path, *names)], None) == (name, frozenset(copies))


def test_all_sub_models_must_say_so(tmp_path: Path) -> None:
    names = ("model.embed_tokens.weight", "lm_head.weight")
    tied, other = checkpoint(tmp_path / "a", *names), checkpoint(tmp_path / "b", *names, config={})
    group = ("model.embed_tokens.weight", frozenset({"lm_head.weight"}))
    assert tied_group([tied, tied], None) == group
    assert tied_group([tied, other], None) is None
    assert tied_group([tied, tied], other) == group  # the base need not
    assert tied_group([other, other], tied) is None


def test_copies_are_found_in_any_source(tmp_path: Path) -> None:
    with_head = checkpoint(tmp_path / "a", "model.embed_tokens.weight", "lm_head.weight")
    without = checkpoint(tmp_path / "b", "model.embed_tokens.weight")
    only_head = checkpoint(tmp_path / "c", "lm_head.weight")
    group = ("model.embed_tokens.weight", frozenset({"lm_head.weight"}))
    assert tied_group([without, with_head], None) == group
    assert tied_group([without, only_head], None) == group
    assert tied_group([without], with_head) == group
    assert tied_group([without, without], without) is None


def test_no_copy_without_an_embedding(tmp_path: Path) -> None:
    assert tied_group([checkpoint(tmp_path, "lm_head.weight")], None) is None


def test_names_end_at_a_dot(tmp_path: Path) -> None:
    lookalikes = checkpoint(tmp_path, "model.embed_tokens.weight", "not_lm_head.weight", "my_output.weight")
    assert tied_group([lookalikes], None) is None


def test_a_copy_of_another_shape_is_none(tmp_path: Path) -> None:
    other = {"lm_head.weight": (9, 4)}
    assert tied_group([checkpoint(tmp_path, "model.embed_tokens.weight", other=other)], None) is None
