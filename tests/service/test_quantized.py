"""Quantised sources: a selection among codes means nothing, so they are copied or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import reference
from tests.support.checkpoints import Shapes, Tensor, fine_tuned, make_family, read_model, write_model
from tests.support.merging import fails, merge, model_files

QUANTIZED = {"model_type": "llama", "quantization_config": {"quant_method": "x", "bits": 8}}
PLAIN = {"model_type": "llama"}
SHAPES: Shapes = {
    "norm.weight": ("BF16", (33,)),
    "q.weight": ("I8", (40, 16)),
}
LAYOUTS: dict[str, Shapes] = {
    "gptq": {"q.qweight": ("I32", (40, 16)), "q.qzeros": ("I32", (4, 2)), "q.scales": ("F16", (4, 16))},
    "fp8": {"q.weight": ("F8_E4M3", (40, 16)), "q.weight_scale_inv": ("F32", (2, 2))},
    "packed": {"q.weight_packed": ("I32", (40, 4)), "q.weight_scale": ("BF16", (40, 1))},
    "mxfp4": {"q_blocks": ("U8", (40, 16)), "q_scales": ("U8", (40,))},
    "bitsandbytes": {"q.weight": ("I8", (40, 16)), "q.SCB": ("F32", (40,))},
}


def write(root: Path, shapes: Shapes, config: dict[str, Any], tuned: set[str]) -> tuple[Any, dict[str, Any]]:
    """Three models and a base that differ in the tensors ``tuned`` only; the family and its spec."""
    family = make_family(root, shapes, config=config, kept=1.0)
    for index, model in enumerate(family.models):
        changed: dict[str, Tensor] = {
            name: fine_tuned(tensor, f"{index}{name}", 0.5)
            for name, tensor in family.base.items()
            if name in tuned
        }
        model.update(changed)
        write_model(root / f"m{index}", model, config=config)
    return family, family.spec()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_with_companions_that_differ_are_refused(tmp_path: Path, layout: str) -> None:
    shapes = {"norm.weight": ("BF16", (33,)), **LAYOUTS[layout]}
    codes = next(iter(LAYOUTS[layout]))
    _, spec = write(tmp_path, shapes, PLAIN, {codes, "norm.weight"})
    with fails("quantized-source") as failed:
        merge(spec)
    assert codes in str(failed.value)
    assert not model_files(tmp_path / "out")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scales_that_differ_are_refused(tmp_path: Path, layout: str) -> None:
    shapes = {"norm.weight": ("BF16", (33,)), **LAYOUTS[layout]}
    scales = list(LAYOUTS[layout])[-1]
    _, spec = write(tmp_path, shapes, PLAIN, {scales})
    with fails("quantized-source") as failed:
        merge(spec)
    assert scales in str(failed.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["select", "average"])
def test_identical_ones_are_copied_and_the_rest_is_merged(tmp_path: Path, layout: str, method: str) -> None:
    shapes = {"norm.weight": ("BF16", (33,)), **LAYOUTS[layout]}
    family, spec = write(tmp_path, shapes, PLAIN, {"norm.weight"})
    merge({**spec, "method": {"name": method}})
    found = read_model(tmp_path / "out")
    norms = [model["norm.weight"] for model in family.models]
    merged = (
        reference.average(norms)
        if method == "average"
        else reference.select("norm.weight", norms, family.base["norm.weight"])[0]
    )
    assert found == {**family.base, "norm.weight": merged}
    assert merged not in norms


def test_a_config_that_says_so_is_believed(tmp_path: Path) -> None:
    _, spec = write(tmp_path / "one", SHAPES, QUANTIZED, {"q.weight"})
    with fails("quantized-source"):
        merge(spec)
    assert not model_files(tmp_path / "one" / "out")
    _, spec = write(tmp_path / "two", SHAPES, QUANTIZED, {"norm.weight"})
    merge(spec)
    config = json.loads((tmp_path / "two" / "out" / "config.json").read_text())
    assert config == QUANTIZED


def test_integers_without_a_sign_of_codes_are_merged_by_value(tmp_path: Path) -> None:
    family, spec = write(tmp_path, SHAPES, PLAIN, {"q.weight"})
    merge(spec)
    codes = [model["q.weight"] for model in family.models]
    assert (
        read_model(tmp_path / "out")["q.weight"]
        == reference.select("q.weight", codes, family.base["q.weight"])[0]
    )


def test_one_quantised_source_among_others_is_named(tmp_path: Path) -> None:
    _, spec = write(tmp_path, {"norm.weight": ("BF16", (33,))}, PLAIN, {"norm.weight"})
    family, _ = write(tmp_path / "other", {"norm.weight": ("I8", (33,))}, QUANTIZED, set())
    with fails("tensor-mismatch") as failed:
        merge({**spec, "models": [*spec["models"], str(family.root / "m0")]})
    assert "norm.weight" in str(failed.value)
    assert str(family.root / "m0") in str(failed.value)
