"""What users do with a result: open it with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.support.merging import merge


def _models(root: Path, *, tied: bool) -> list[Path]:
    """A base and three models that differ from it in half of their values, sharded, bf16."""
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    folders = []
    for name in ("base", "m0", "m1", "m2"):
        model.load_state_dict(start)
        if name != "base":
            with torch.no_grad():
                for value in model.parameters():
                    value.add_(torch.randn_like(value) * (torch.rand_like(value) < 0.5) * 0.1)
        model.save_pretrained(root / name, max_shard_size="60KB")
        folders.append(root / name)
    return folders


def _spec(root: Path, folders: list[Path], **changes: Any) -> dict[str, Any]:
    return {
        "models": [str(folder) for folder in folders[1:]],
        "base": str(folders[0]),
        "method": {"name": "select", "resample": 4},
        "output": str(root / "out"),
        **changes,
    }


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_size", ["50KB", "5GB"])
def test_from_pretrained_opens_a_result(tmp_path: Path, tied: bool, shard_size: str) -> None:
    folders = _models(tmp_path, tied=tied)
    assert len(list(folders[1].glob("*.safetensors"))) > 1
    merge(_spec(tmp_path, folders, shard_size=shard_size))
    out = tmp_path / "out"
    single = (out / "model.safetensors").exists()
    assert single == (shard_size == "5GB")
    assert single != (out / "model.safetensors.index.json").exists()

    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    written: dict[str, torch.Tensor] = {}
    for file in out.glob("*.safetensors"):
        written |= load_file(file)
    assert ("lm_head.weight" in written) != tied
    for name, value in model.state_dict().items():
        stored = written["model.embed_tokens.weight" if tied and name == "lm_head.weight" else name]
        assert torch.equal(value, stored), name
    logits = model(torch.arange(16)[None]).logits
    assert logits.shape == (1, 16, 128)
    assert bool(logits.isfinite().all())


def test_every_value_is_one_of_its_sources(tmp_path: Path) -> None:
    folders = _models(tmp_path, tied=False)
    merge(_spec(tmp_path, folders))
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    sources = [AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in folders]
    for name, value in result.items():
        assert bool(torch.stack([source[name] == value for source in sources]).any(dim=0).all()), name


def test_config_follows_the_results_dtype(tmp_path: Path) -> None:
    folders = _models(tmp_path, tied=False)
    merge(_spec(tmp_path, folders, dtype="f32"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.float32
