"""A model folder as columns: which tensors it has and where their bytes lie."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from plait.errors import CheckpointMalformed, CheckpointUnsupported, PlaitError, SourceMissing
from plait_workers.checkpoint.dtypes import Dtype
from plait_workers.checkpoint.header import Header, parse_header, parse_prefix
from plait_workers.checksums import ALGORITHMS, DEFAULT
from plait_workers.job import SourceFile
from plait_workers.storage.base import ObjectInfo, ObjectStore

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
CONFIG: Final = "config.json"
MAX_JSON: Final = 128 << 20
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HEADER_THREADS = 16
_FIRST_READ = 64 << 10  # holds the header of most files, and costs no more to ask for than 8 bytes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """The tensors of one model, in the order in which its files hold them.

    A format becomes one of these; the rest of Plait does not know of formats. (A format that keeps a
    tensor in several pieces will give several files and offsets a tensor; safetensors gives one.)

    Args:
        uri: the folder.
        files: its tensor files, pinned.
        names, dtypes, shapes: of each tensor.
        file: (tensors,) index into ``files``.
        offset: (tensors,) where the tensor's bytes begin in that file.
        config: config.json, or None if there is none.
        others: what else lies in the folder, for the small files of the result.
    """

    uri: str
    files: tuple[SourceFile, ...]
    names: list[str]
    dtypes: list[Dtype]
    shapes: list[tuple[int, ...]]
    file: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    config: dict[str, Any] | None
    others: tuple[ObjectInfo, ...]
    rows: dict[str, int]

    def nbytes(self, row: int) -> int:
        """Bytes of a tensor."""
        return self.dtypes[row].nbytes(prod(self.shapes[row]))


class HeaderCache:
    """Parses each distinct header once. Threads may share it; at worst one is parsed twice."""

    def __init__(self) -> None:
        self._headers: dict[tuple[bytes, int], Header] = {}

    def parse(self, raw: bytes, data_bytes: int, where: str) -> Header:
        """As :func:`~plait_workers.checkpoint.header.parse_header`; the result is shared."""
        key = (hashlib.sha256(raw).digest(), data_bytes)
        header = self._headers.get(key)
        if header is None:
            header = self._headers[key] = parse_header(raw, data_bytes=data_bytes, where=where)
        return header


def load_checkpoint(store: ObjectStore, known: HeaderCache | None = None) -> Checkpoint:
    """Read a model folder's headers; no tensor byte is read.

    ``model.safetensors`` is taken if it is there, else the index and its shards, all headers at once.

    Args:
        store: rooted at the folder.
        known: headers that were parsed before; fine-tunes of one base often have equal ones.

    Raises:
        SourceMissing: no such folder, no model in it, or a shard is missing.
        CheckpointUnsupported: it holds pickles, or an adapter.
        CheckpointMalformed: a file breaks its format, or the index and the shards disagree.
    """
    listing = {info.key: info for info in store.list(deep=False)}
    if SINGLE in listing:
        weight_map, keys = None, [SINGLE]
    elif INDEX in listing:
        weight_map = _weight_map(store)
        keys = sorted(set(weight_map.values()), key=natural_key)
        missing = [key for key in keys if key not in listing]
        if missing:
            raise SourceMissing(
                "the index names files that are not there",
                where=f"{store.uri}/{INDEX}",
                found=", ".join(missing),
            )
    else:
        raise _no_model(store, listing)
    with ThreadPoolExecutor(min(_HEADER_THREADS, len(keys))) as pool:
        parsed = HeaderCache() if known is None else known
        files = list(pool.map(lambda key: _read_file(store, listing[key], parsed), keys))
    if weight_map is not None:
        _compare_index(store, weight_map, {source.key: header for source, header in files})
    others = tuple(info for key, info in sorted(listing.items()) if key not in (SINGLE, INDEX, *keys))
    return _columns(store, files, others)


def natural_key(text: str) -> list[tuple[int, int, str, str]]:
    """Sorts ``order-2`` before ``order-10``: digits by their number, the rest by its letters."""
    return [
        # A number by its length and digits, however many: int() refuses more than a few thousand.
        (0, len(part.lstrip("0")), part.lstrip("0"), part)
        if part.isdigit() and part.isascii()
        else (1, 0, part, "")
        for part in re.split(r"([0-9]+)", text)
        if part
    ]


def _columns(
    store: ObjectStore, files: Sequence[tuple[SourceFile, Header]], others: tuple[ObjectInfo, ...]
) -> Checkpoint:
    names: list[str] = []
    dtypes: list[Dtype] = []
    shapes: list[tuple[int, ...]] = []
    for _, header in files:
        names += header.names
        dtypes += header.dtypes
        shapes += header.shapes
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) != len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise CheckpointMalformed("two files hold a tensor of one name", where=f"{store.uri}: {twice}")
    counts = [len(header) for _, header in files]
    return Checkpoint(
        uri=store.uri,
        files=tuple(source for source, _ in files),
        names=names,
        dtypes=dtypes,
        shapes=shapes,
        file=np.repeat(np.arange(len(files), dtype=np.int32), counts),
        offset=np.concatenate([header.begin + source.header_bytes for source, header in files]).astype(
            np.int64
        ),
        config=_config(store),
        others=others,
        rows=rows,
    )


def _read_file(store: ObjectStore, info: ObjectInfo, known: HeaderCache) -> tuple[SourceFile, Header]:
    """A file's pin and its header. One request, for all but giant headers, after a look at the object."""
    where = f"{store.uri}/{info.key}"
    algorithm = ""
    if store.is_remote:
        looked = store.head(info.key)
        if looked is None:
            raise SourceMissing("a file disappeared while it was looked at", where=where)
        info = looked
        algorithm = next((name for name in ALGORITHMS if name in info.checksums), DEFAULT)
    pin = info.pin or info.version
    raw = _read_header(store, info, pin)
    try:
        header = known.parse(raw[8:], info.size - len(raw), where)
    except CheckpointMalformed:
        again = _read_header(store, info, pin) if store.is_remote else raw
        if again == raw:
            raise
        raw = again  # the first was damaged on its way
        header = known.parse(raw[8:], info.size - len(raw), where)
    crc = ALGORITHMS[algorithm] if algorithm else None
    source = SourceFile(
        key=info.key,
        version=pin,
        size=info.size,
        algorithm=algorithm,
        checksum=info.checksums.get(algorithm, ""),
        header_bytes=len(raw),
        header_checksum=crc.hexadecimal(crc.update(raw, 0)) if crc else "",
    )
    return source, header


def _read_header(store: ObjectStore, info: ObjectInfo, pin: str) -> bytes:
    """The length and the header, as they lie in the file; a length that cannot be is read twice."""
    where = f"{store.uri}/{info.key}"
    reader = store.open(info.key, pin)
    try:
        first = bytes(reader.read(0, memoryview(bytearray(min(_FIRST_READ, info.size)))))
        try:
            length = parse_prefix(first[:8], file_size=info.size, where=where)
        except CheckpointMalformed:
            if not store.is_remote:
                raise
            first = bytes(reader.read(0, memoryview(bytearray(min(_FIRST_READ, info.size)))))
            length = parse_prefix(first[:8], file_size=info.size, where=where)
        if len(first) < 8 + length:
            first += bytes(reader.read(len(first), memoryview(bytearray(8 + length - len(first)))))
        reader.check()
    finally:
        reader.close()
    return first[: 8 + length]


def read_json(store: ObjectStore, key: str) -> Any:
    """A JSON file of a model, or None if there is none. Duplicate keys are refused.

    Raises:
        CheckpointMalformed: it is not JSON.
    """
    data = store.get(key, limit=MAX_JSON)
    if data is None:
        return None
    where = f"{store.uri}/{key}"
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointMalformed("not a JSON file", where=where, found=str(error)[:200]) from error


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found


def _config(store: ObjectStore) -> dict[str, Any] | None:
    config = read_json(store, CONFIG)
    if config is not None and not isinstance(config, dict):
        raise CheckpointMalformed("not a JSON object", where=f"{store.uri}/{CONFIG}")
    return config


def _weight_map(store: ObjectStore) -> dict[str, str]:
    """The index's tensor names and files; files lie in the model's own folder, under plain names."""
    where = f"{store.uri}/{INDEX}"
    index = read_json(store, INDEX)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointMalformed(
            "the index has no weight_map", where=where, expected="an object of names to files"
        )
    for name, key in weight_map.items():
        if not isinstance(key, str) or not is_plain_name(key) or not key.endswith(".safetensors"):
            raise CheckpointMalformed(
                f"tensor {name!r} lies in no file of this folder",
                where=where,
                expected="a plain file name that ends in .safetensors",
                found=repr(key),
                hint="Pickled shards are not read: load the model and save_pretrained it with safetensors"
                if isinstance(key, str) and key.endswith(_PICKLES)
                else None,
            )
    return weight_map


def is_plain_name(name: str) -> bool:
    """Whether a file name stays in its folder: no separators, no ``..``, no drive, nothing unprintable."""
    return name not in ("", ".", "..") and name.isprintable() and not any(c in name for c in "/\\:\0")


def _compare_index(store: ObjectStore, weight_map: dict[str, str], headers: dict[str, Header]) -> None:
    held = {key: set(header.names) for key, header in headers.items()}
    wrong = [name for name, key in weight_map.items() if name not in held[key]]
    extra = [name for header in headers.values() for name in header.names if name not in weight_map]
    for names, what in (
        (wrong, "the index names tensors that their files lack"),
        (extra, "files hold tensors that the index lacks"),
    ):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise CheckpointMalformed(what, where=f"{store.uri}/{INDEX}", found=shown)


def _no_model(store: ObjectStore, listing: dict[str, ObjectInfo]) -> PlaitError:
    pickles = [
        key
        for key in listing
        if key.endswith(_PICKLES) and not key.startswith(("training_args", "optimizer"))
    ]
    if "adapter_model.safetensors" in listing:
        return CheckpointUnsupported(
            "a PEFT adapter is no whole model",
            where=store.uri,
            hint="Merge it into its base with merge_and_unload first",
        )
    if pickles:
        return CheckpointUnsupported(
            "a model in pickle files is not read, as unpickling runs code",
            where=f"{store.uri}/{pickles[0]}",
            expected=SINGLE,
            hint="Convert it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)",
        )
    found = "an empty or missing folder" if not listing else ", ".join(sorted(listing)[:5])
    return SourceMissing("no model here", where=store.uri, expected=f"{SINGLE} or {INDEX}", found=found)
