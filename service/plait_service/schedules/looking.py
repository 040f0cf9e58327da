"""How a scheduler speaks to stores: as the spec says, but it does not wait long for one that is ill."""

from __future__ import annotations

from typing import Final, TypeVar

from plait.spec_storage import StorageSpec, StoreOptions
from plait_workers.storage.registry import Stores

Options = TypeVar("Options", bound=StoreOptions)
_TIMEOUT: Final = 20.0
_PATIENCE: Final = 20.0


def impatient(storage: StorageSpec) -> Stores:
    """Stores whose requests fail after some twenty seconds: a tick that is looked at again loses nothing."""
    buckets = {name: _shorter(options) for name, options in storage.buckets.items()}
    return Stores(_shorter(storage).model_copy(update={"buckets": buckets}))


def _shorter(options: Options) -> Options:
    return options.model_copy(
        update={
            "timeout": min(options.timeout or _TIMEOUT, _TIMEOUT),
            "patience": min(_PATIENCE if options.patience is None else options.patience, _PATIENCE),
        }
    )
