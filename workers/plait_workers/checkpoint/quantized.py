"""Recognises quantised checkpoints: codes with scales, of which a merge would mean nothing."""

from __future__ import annotations

import re
from typing import Final

from plait_workers.checkpoint.model import Checkpoint

# What stands beside codes: scales, zero points, permutations and shapes, as GPTQ, AWQ, bitsandbytes,
# compressed-tensors, FP8 and MXFP4 checkpoints name them.
_COMPANION: Final = re.compile(
    r"^(?P<stem>.+?)(?:\.weight)?[._](?:scales?|scale_inv|scale_2|zeros?|zero_points?|qzeros|g_idx|shape|absmax"
    r"|SCB|quant_map|nested_absmax|nested_quant_map|quant_state\..+|weight_scale|weight_scale_inv|weight_scale_2"
    r"|weight_zero_point|weight_shape|weight_g_idx|input_scale|activation_scale)$"
)
_CODES: Final = ("", ".weight", ".qweight", ".weight_packed", "_packed", "_blocks", ".blocks", ".qzeros")


def quantized_names(checkpoint: Checkpoint) -> set[str]:
    """Names of the tensors that are quantised codes, and of those that explain them.

    With a ``quantization_config`` in config.json these are all tensors that are not F16, BF16, F32 or
    F64, and all tensors if there is no such. Without, those with a companion scale, zero point or shape.
    """
    found: set[str] = set()
    for name in checkpoint.names:
        if name.endswith((".weight", ".bias")):  # no companion's name, and most tensors' names
            continue
        match = _COMPANION.match(name)
        if match is None:
            continue
        for suffix in _CODES:
            code = match["stem"] + suffix
            row = checkpoint.rows.get(code)
            if row is not None and checkpoint.dtypes[row].kind != "float":
                found |= {name, code}
    if is_quantized(checkpoint):
        codes = {
            name
            for name, dtype in zip(checkpoint.names, checkpoint.dtypes, strict=True)
            if dtype.kind != "float"
        }
        found |= codes or set(checkpoint.names)
    return found


def is_quantized(checkpoint: Checkpoint) -> bool:
    """Whether config.json says so, at its top or for a part of the model."""
    config = checkpoint.config or {}
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    return any(part.get("quantization_config") for part in parts)
