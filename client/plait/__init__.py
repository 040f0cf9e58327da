"""Plait: merge large language models where they live.

``import plait`` is light: no torch, no Ray, no NumPy; pydantic and httpx only once they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait.async_client import AsyncClient
    from plait.client import Client
    from plait.errors import PlaitError
    from plait.spec import MergeSpec

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "MergeSpec", "PlaitError", "__version__"]

_HOMES = {
    "AsyncClient": "plait.async_client",
    "Client": "plait.client",
    "MergeSpec": "plait.spec",
    "PlaitError": "plait.errors",
}


def __getattr__(name: str) -> object:
    """Import the public names on first use (PEP 562)."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'plait' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
