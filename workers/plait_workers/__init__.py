"""What touches bytes: stores, checkpoints, kernels, methods, work units."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait_workers.state_dicts import merge_state_dicts

__all__ = ["merge_state_dicts"]


def __getattr__(name: str) -> object:
    """Import on first use (PEP 562): torch is needed for this alone."""
    if name != "merge_state_dicts":
        raise AttributeError(f"module 'plait_workers' has no attribute {name!r}")
    from plait_workers.state_dicts import merge_state_dicts

    return merge_state_dicts
