"""The files beside the tensors: which are taken, from where, and what is written into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import Family, make_family, read_model
from tests.support.merging import fails, merge, model_files, prepared_of, problems_of

TAKEN = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TAKEN = (*TAKEN, "chat_template.jinja", "modeling_own.py", "merges.txt", "tokenizer.model")
LEFT = ("optimizer.pt", "trainer_state.json", "README.md", "plait.json", "training_args.bin", "events.log")


@pytest.fixture
def family(tmp_path: Path) -> Family:
    others = {name: name.encode() for name in (*TAKEN, *LEFT)}
    family = make_family(tmp_path, {"a": ("BF16", (9,)), "b": ("BF16", (999,))}, others=others)
    for index in range(3):
        (tmp_path / f"m{index}" / "tokenizer.json").write_text(f"of m{index}")
    return family


def test_what_a_model_needs_comes_from_the_first_sub_model(family: Family) -> None:
    merge(family.spec())
    for name in TAKEN:
        assert (family.out / name).read_bytes() == (family.root / "m0" / name).read_bytes()
    assert not [name for name in LEFT[:2] + LEFT[4:] if (family.out / name).exists()]
    found = {path.name for path in family.out.iterdir()}
    assert found == {*TAKEN, "config.json", "model.safetensors", "README.md", "plait.json"}
    manifest = json.loads((family.out / "plait.json").read_text())
    assert manifest["files"] == {
        name: (family.out / name).stat().st_size for name in (*TAKEN, "config.json", "README.md")
    }


@pytest.mark.parametrize("name", ["m2", "base"])
def test_copy_from_names_another(family: Family, name: str) -> None:
    (family.root / name / "tokenizer.json").write_text(f"of {name}")
    merge(family.spec(copy_from=str(family.root / name)))
    assert (family.out / "tokenizer.json").read_text() == f"of {name}"


def test_copy_from_names_a_model_of_the_merge(family: Family) -> None:
    globbed: dict[str, Any] = {"models": [{"glob": str(family.root / "m[01]")}]}
    (problem,) = problems_of(family.spec(**globbed, copy_from=str(family.root / "m0" / "deeper")))
    assert problem.kind == "spec-invalid"
    assert "copy_from" in str(problem)


def test_the_card_says_what_the_result_is_made_of(family: Family) -> None:
    outcome = merge(family.spec(seed=77))
    card = (family.out / "README.md").read_text()
    for words in ("select, resample 1, p = 1/3 each", "seed 77", outcome.fingerprint, "1,008 parameters"):
        assert words in card
    assert all(str(family.root / name) in card for name in ("m0", "m1", "m2", "base"))


def test_an_index_names_every_tensor(family: Family) -> None:
    merge(family.spec(shard_size=1000))
    index = json.loads((family.out / "model.safetensors.index.json").read_text())
    assert list(index["weight_map"]) == ["a", "b"]
    assert len(set(index["weight_map"].values())) == 2
    assert index["metadata"]["total_size"] == 2 * 1008
    assert list(read_model(family.out)) == ["a", "b"]


def test_a_small_file_that_changes_after_the_plan_ends_the_merge(family: Family) -> None:
    prepared = prepared_of(family.spec())
    (family.root / "m0" / "tokenizer.json").write_text("another")
    with fails("source-changed") as failed:
        merge(prepared)
    assert "tokenizer.json" in str(failed.value)
    assert not model_files(family.out)


def test_without_a_config_there_is_none(tmp_path: Path) -> None:
    family = make_family(tmp_path, {"a": ("BF16", (9,))}, config=None)
    merge(family.spec())
    assert not (family.out / "config.json").exists()
