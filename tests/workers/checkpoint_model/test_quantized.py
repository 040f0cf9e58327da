from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plait_workers.checkpoint.model import Checkpoint, load_checkpoint
from plait_workers.checkpoint.quantized import is_quantized, quantized_names
from plait_workers.storage.local import LocalStore
from tests.support.checkpoints import random_tensor, write_model

P = "model.layers.0.mlp.down_proj"
NORM = "model.layers.0.input_layernorm.weight"
PLAIN = {NORM: "BF16", "lm_head.weight": "BF16", "model.layers.0.bias": "F32"}

# Tensors beside the plain ones, as the tools named write them; all of them are codes or explain codes.
LAYOUTS: dict[str, dict[str, str]] = {
    "GPTQ": {f"{P}.qweight": "I32", f"{P}.qzeros": "I32", f"{P}.scales": "F16", f"{P}.g_idx": "I32"},
    "AWQ": {f"{P}.qweight": "I32", f"{P}.qzeros": "I32", f"{P}.scales": "F16"},
    "bitsandbytes 4 bits": {
        f"{P}.weight": "U8",
        f"{P}.weight.absmax": "U8",
        f"{P}.weight.quant_map": "F32",
        f"{P}.weight.nested_absmax": "F32",
        f"{P}.weight.nested_quant_map": "F32",
        f"{P}.weight.quant_state.bitsandbytes__nf4": "U8",
    },
    "bitsandbytes 8 bits": {f"{P}.weight": "I8", f"{P}.SCB": "F32"},
    "compressed-tensors packed": {
        f"{P}.weight_packed": "I32",
        f"{P}.weight_scale": "BF16",
        f"{P}.weight_shape": "I64",
        f"{P}.weight_zero_point": "I32",
        f"{P}.weight_g_idx": "I32",
    },
    "compressed-tensors 8 bits": {
        f"{P}.weight": "I8",
        f"{P}.weight_scale": "BF16",
        f"{P}.input_scale": "BF16",
    },
    "FP8 by block": {f"{P}.weight": "F8_E4M3", f"{P}.weight_scale_inv": "F32"},
    "FP8 by tensor": {f"{P}.weight": "F8_E4M3", f"{P}.weight_scale": "F32", f"{P}.input_scale": "F32"},
    "NVFP4": {
        f"{P}.weight": "U8",
        f"{P}.weight_scale": "F8_E4M3",
        f"{P}.weight_scale_2": "F32",
        f"{P}.input_scale": "F32",
    },
    "MXFP4": {f"{P}_blocks": "U8", f"{P}_scales": "U8"},
}


def checkpoint(folder: Path, dtypes: dict[str, str], config: dict[str, Any] | None = None) -> Checkpoint:
    tensors = {name: random_tensor(dtype, (4,), name) for name, dtype in dtypes.items()}
    write_model(folder, tensors, config=config or {"model_type": "llama"})
    return load_checkpoint(LocalStore(folder))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_are_known_by_their_companions(tmp_path: Path, layout: str) -> None:
    found = quantized_names(checkpoint(tmp_path, {**PLAIN, **LAYOUTS[layout]}))
    assert found == set(LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["", "text_config"])
def test_a_config_that_says_so_names_all_that_are_no_floats(tmp_path: Path, layout: str, part: str) -> None:
    says = {"quantization_config": {"quant_method": "some"}}
    config: dict[str, Any] = {part: says} if part else says
    loaded = checkpoint(tmp_path, {**PLAIN, **LAYOUTS[layout], "position_ids": "I64"}, config)
    assert is_quantized(loaded)
    found = quantized_names(loaded)
    assert found >= set(LAYOUTS[layout]) | {"position_ids"}
    assert not found & set(PLAIN)


def test_a_config_that_says_so_of_floats_alone_names_them_all(tmp_path: Path) -> None:
    loaded = checkpoint(tmp_path, PLAIN, {"quantization_config": {"quant_method": "some"}})
    assert quantized_names(loaded) == set(PLAIN)


@pytest.mark.parametrize(
    "config", [{}, {"quantization_config": None}, {"quantization_config": {}}, {"text_config": 1}]
)
def test_a_config_that_does_not_say_so(tmp_path: Path, config: dict[str, Any]) -> None:
    loaded = checkpoint(tmp_path, PLAIN, {"model_type": "llama", **config})
    assert not is_quantized(loaded)
    assert quantized_names(loaded) == set()


@pytest.mark.parametrize(
    "others",
    [
        {"norm.scale": "BF16", "norm.shape": "I64", "logit_scale": "F32", "model.scales": "F32"},
        {"h.0.attn.bias": "U8", "h.0.attn.weight": "BF16", "position_ids": "I64"},
        {"vision.scale": "F32", "vision.weight": "F16"},
        {"a.weight": "F8_E4M3", "b.weight": "I8"},
    ],
    ids=str,
)
def test_what_only_looks_like_it(tmp_path: Path, others: dict[str, str]) -> None:
    """A scale beside floats scales floats; integers and 8-bit floats alone are just that."""
    found = quantized_names(checkpoint(tmp_path, {**PLAIN, **others}))
    assert found == set()
