"""Tied weights: tensors that a model's config.json makes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from plait_workers.checkpoint.model import Checkpoint

# Input embeddings, in the order of preference, and what may be tied to them, as transformers names them.
_EMBEDDINGS: Final = (
    "shared.weight",
    "embed_tokens.weight",
    "tok_embeddings.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
)
_TIED: Final = (
    "lm_head.weight",
    "embed_out.weight",
    "output.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "predictions.decoder.weight",
)


def ties_weights(checkpoint: Checkpoint) -> bool:
    """Whether config.json says ``tie_word_embeddings: true``, at its top or in its text model."""
    config = checkpoint.config or {}
    text = config.get("text_config")
    parts = [config, text if isinstance(text, dict) else {}]
    return any(part.get("tie_word_embeddings") is True for part in parts)


def tied_group(models: Sequence[Checkpoint], base: Checkpoint | None) -> tuple[str, frozenset[str]] | None:
    """The input embedding's name and the names of its copies, over all sources; None if nothing is tied.

    The sub-models decide, as the result is one of them. A copy counts only where its shape is the
    embedding's.
    """
    if not all(ties_weights(checkpoint) for checkpoint in models):
        return None
    checkpoints = [*models, base] if base else models
    shapes: dict[str, tuple[int, ...]] = {}
    for checkpoint in checkpoints:
        for name in checkpoint.names:
            if name.endswith((*_EMBEDDINGS, *_TIED)):
                shapes.setdefault(name, checkpoint.shapes[checkpoint.rows[name]])
    for ending in _EMBEDDINGS:
        for name, shape in shapes.items():
            if not _ends(name, ending):
                continue
            copies = {
                other for other in shapes if other != name and shapes[other] == shape and _is_copy(other)
            }
            if copies:
                return name, frozenset(copies)
    return None


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _is_copy(name: str) -> bool:
    return any(_ends(name, ending) for ending in _TIED)
