"""What a merge would read, as a hash: equal hashes, equal results.

Of the spec it has all that bears on the bytes of a result. Of each model it has the tensor files and the
index, of the one whose small files are copied those too: name, size, and the version that the store gives
(ETag, commit, or what a local file's status says). Where the result goes is no input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from plait.errors import SourceMissing
from plait.spec_model import NOT_OF_THE_RESULT, MergeSpec, Source
from plait.uri import parse_uri
from plait_service.prepare import expand
from plait_service.small_files import is_copied
from plait_workers.checkpoint.model import INDEX
from plait_workers.storage.registry import Stores

_THREADS: Final = 8
_TENSORS: Final = ".safetensors"
_OF_NO_BEARING: Final = NOT_OF_THE_RESULT | {"output"}


def fingerprint_inputs(spec: MergeSpec, places: Stores) -> str:
    """A SHA-256 of what the merge would read, in hexadecimal.

    Cost: a listing of each glob and of each model; no tensor byte is read.

    Raises:
        PlanRejected: a glob finds nothing.
        SourceMissing: there is nothing at a model's place.
        StoreError: a store refused, or did not answer.
    """
    resolved = expand(spec, places)
    models = [source.uri for source in resolved.models if isinstance(source, Source)]
    copied = resolved.copy_from or models[0]
    folders = sorted({*models, copied, *([resolved.base] if resolved.base else [])})

    def files(folder: str) -> list[tuple[str, int, str]]:
        return list(_files(folder, places, small=folder == copied))

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="plait-inputs") as pool:
        listed = dict(zip(folders, pool.map(files, folders), strict=True))
    said: dict[str, Any] = {
        "spec": resolved.model_dump(mode="json", exclude=set(_OF_NO_BEARING)),
        "sources": listed,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _files(folder: str, places: Stores, *, small: bool) -> Iterator[tuple[str, int, str]]:
    found = False
    for info in places.open(parse_uri(folder)).list(deep=False):
        if info.key.endswith(_TENSORS) or info.key == INDEX or (small and is_copied(info.key)):
            found |= info.key.endswith(_TENSORS)
            yield info.key, info.size, info.version
    if not found:
        raise SourceMissing("no model here", where=folder, expected=f"files that end in {_TENSORS}")
