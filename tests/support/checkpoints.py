"""Small checkpoints on disk. Their bytes come from SHAKE-256, so they are the same everywhere, for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import safetensors

NATIVE: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I32": np.int32,
    "I64": np.int64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
"""NumPy's own types for the names of the safetensors format."""
_OPAQUE_BITS = {"C64": 64, "F4": 4}
FLOATS = ("F8_E4M3", "F16", "BF16", "F32", "F64")
INDEX = "model.safetensors.index.json"
CONFIG: dict[str, Any] = {"model_type": "llama", "torch_dtype": "bfloat16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor as a file has it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    @property
    def values(self) -> npt.NDArray[Any]:
        """Flat, in NumPy's type."""
        return np.frombuffer(self.data, NATIVE[self.dtype])


Tensors = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]


def noise(seed: str, count: int) -> bytes:
    """``count`` bytes that look random."""
    return hashlib.shake_256(seed.encode()).digest(count)


def of_values(dtype: str, values: npt.ArrayLike, shape: Sequence[int] | None = None) -> Tensor:
    """A tensor of these values."""
    array = np.asarray(values).astype(NATIVE[dtype])
    return Tensor(dtype, tuple(array.shape if shape is None else shape), array.tobytes())


def random_tensor(dtype: str, shape: Sequence[int], seed: str) -> Tensor:
    """Finite values, of both signs where there are such."""
    count = prod(shape)
    if dtype in _OPAQUE_BITS:
        return Tensor(dtype, tuple(shape), noise(seed, count * _OPAQUE_BITS[dtype] // 8))
    if dtype in FLOATS:
        return of_values(dtype, np.frombuffer(noise(seed, 2 * count), np.int16) / 1024.0, shape)
    raw = noise(seed, count * np.dtype(NATIVE[dtype]).itemsize)
    return of_values(dtype, np.frombuffer(raw, np.uint8) & 1 if dtype == "BOOL" else _ints(raw, dtype), shape)


def _ints(raw: bytes, dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(raw, NATIVE[dtype])


def fine_tuned(base: Tensor, seed: str, kept: float) -> Tensor:
    """About ``kept`` of the base's elements, and others in the other places."""
    fresh = random_tensor(base.dtype, base.shape, seed)
    if base.dtype not in NATIVE:
        return base
    keep = np.frombuffer(noise(f"{seed}/mask", prod(base.shape)), np.uint8) < kept * 256
    return Tensor(base.dtype, base.shape, np.where(keep, base.values, fresh.values).tobytes())


def file_bytes(tensors: Tensors) -> bytes:
    """A safetensors file, its tensors in this order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        end = at + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + b"".join(tensor.data for tensor in tensors.values())


def write_model(
    folder: Path,
    tensors: Tensors,
    *,
    shards: int = 1,
    config: Mapping[str, Any] | None = CONFIG,
    others: Mapping[str, bytes] | None = None,
) -> Path:
    """A model folder; with more than one shard, consecutive tensors lie together, as usual."""
    folder.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        (folder / "model.safetensors").write_bytes(file_bytes(tensors))
    else:
        names, weight_map = list(tensors), {}
        for number in range(shards):
            key = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            held = names[number * len(names) // shards : (number + 1) * len(names) // shards]
            (folder / key).write_bytes(file_bytes({name: tensors[name] for name in held}))
            weight_map |= dict.fromkeys(held, key)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    for name, data in (others or {}).items():
        (folder / name).write_bytes(data)
    return folder


def stored_order(data: bytes) -> list[str]:
    """The tensors of a file by where they lie in it; the library forgets that."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return sorted(header, key=lambda name: header[name]["data_offsets"])


def read_model(folder: Path) -> dict[str, Tensor]:
    """All tensors, read with the library, in the order of the files; an index must agree with them."""
    found: dict[str, Tensor] = {}
    held: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        library = dict(safetensors.deserialize(data))
        for name in stored_order(data):
            item = library[name]
            found[name] = Tensor(item["dtype"], tuple(item["shape"]), bytes(item["data"]))
            held[name] = path.name
    if (folder / INDEX).exists():
        assert json.loads((folder / INDEX).read_text())["weight_map"] == held
    else:
        assert set(held.values()) <= {"model.safetensors"}
    return found


@dataclass(frozen=True)
class Family:
    """A base and its fine-tunes, in memory and as folders ``base``, ``m0``, ``m1``, ... of ``root``."""

    root: Path
    base: Tensors
    models: list[dict[str, Tensor]]

    def spec(self, method: object = "select", **changes: Any) -> dict[str, Any]:
        """A spec that merges them into ``root/out``; ``changes`` replace keys, None removes one."""
        plain = {
            "models": [str(self.root / f"m{index}") for index in range(len(self.models))],
            "base": str(self.root / "base"),
            "method": {"name": method} if isinstance(method, str) else method,
            "output": str(self.root / "out"),
        }
        return {key: value for key, value in {**plain, **changes}.items() if value is not None}

    @property
    def out(self) -> Path:
        return self.root / "out"


def make_family(
    root: Path,
    shapes: Shapes,
    *,
    models: int = 3,
    seed: str = "family",
    kept: float = 0.5,
    shards: int = 1,
    config: Mapping[str, Any] | None = CONFIG,
    others: Mapping[str, bytes] | None = None,
) -> Family:
    """Write a base and ``models`` fine-tunes of it."""
    base = {name: random_tensor(dtype, shape, f"{seed}/{name}") for name, (dtype, shape) in shapes.items()}
    tuned = [
        {name: fine_tuned(tensor, f"{seed}/{index}/{name}", kept) for name, tensor in base.items()}
        for index in range(models)
    ]
    for name, tensors in (("base", base), *((f"m{index}", each) for index, each in enumerate(tuned))):
        write_model(root / name, tensors, shards=shards, config=config, others=others)
    return Family(root, base, tuned)
