"""Selection and average on whole tensors, written from their definitions and for nothing but clarity.

Nothing of the package is used here: Philox, the law and the weights are done again with NumPy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tests.support.checkpoints import FLOATS, NATIVE, Tensor, of_values

Array = npt.NDArray[Any]
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(block: Array, key: tuple[int, int]) -> list[Array]:
    """Philox4x32-10 at the counters (block mod 2**32, block >> 32, 0, 0): four words a block."""
    x = [block & _LOW, block >> _32, np.zeros_like(block), np.zeros_like(block)]
    for number in range(10):
        k0 = np.uint64((key[0] + number * 0x9E3779B9) % 2**32)
        k1 = np.uint64((key[1] + number * 0xBB67AE85) % 2**32)
        first, second = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        x = [(second >> _32) ^ x[1] ^ k0, second & _LOW, (first >> _32) ^ x[3] ^ k1, first & _LOW]
    return x


def draws(name: str, seed: int, count: int) -> tuple[Array, Array]:
    """(u, v) of each element of a tensor."""
    key = hashlib.blake2b(
        name.encode(), digest_size=8, key=seed.to_bytes(8, "little"), person=b"plait.select.v1"
    ).digest()
    words = (int.from_bytes(key[:4], "little"), int.from_bytes(key[4:], "little"))
    x = philox(np.arange((count + 1) // 2, dtype=np.uint64), words)
    return np.stack((x[0], x[2]), 1).ravel()[:count], np.stack((x[1], x[3]), 1).ravel()[:count]


def integer_weights(weights: Sequence[float]) -> list[int]:
    if len(set(weights)) == 1:
        return [1] * len(weights)
    shares = [Fraction(weight) * 2**24 / sum(map(Fraction, weights)) for weight in weights]
    floors = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (floors[i] - shares[i], i))
    for i in order[: 2**24 - sum(floors)]:
        floors[i] += 1
    return floors


def choose(
    name: str,
    models: Sequence[Array],
    base: Array | None,
    *,
    weights: Sequence[float],
    resample: int | Literal["unlimited"],
    seed: int,
) -> Array:
    """Which source each element is taken from; len(models) is the base."""
    integers = np.array(integer_weights(weights), np.uint64)[:, None]
    total, count = integers.sum(), len(models[0])
    u, v = draws(name, seed, count)
    if base is None or resample == 0:
        upto = np.cumsum(integers, axis=0)
        return np.argmax(upto > (u * total) >> _32, axis=0)
    changed = np.stack([model != base for model in models]) & (integers > 0)
    mass = (changed * integers).sum(axis=0, dtype=np.uint64)
    q = ((total - mass) << _32) // total
    threshold = np.zeros_like(q) if resample == "unlimited" else q
    for _ in range(0 if resample == "unlimited" else resample):
        threshold = (threshold * q) >> _32
    upto = np.cumsum(changed * integers, axis=0, dtype=np.uint64)
    picked = np.argmax(upto > (u * mass) >> _32, axis=0)
    return np.where((mass == 0) | (v < threshold), len(models), picked)


def working(dtypes: Sequence[str]) -> str:
    """The dtype in which tensors are compared."""
    if len(set(dtypes)) == 1:
        return dtypes[0]
    return "F64" if "F64" in dtypes else "F32"


def select(
    name: str,
    models: Sequence[Tensor],
    base: Tensor | None,
    *,
    weights: Sequence[float] = (),
    resample: int | Literal["unlimited"] = 1,
    seed: int = 0,
    dtype: str = "auto",
) -> tuple[Tensor, list[int]]:
    """The merged tensor, and how many elements come from each sub-model and, last, from the base."""
    common = working([model.dtype for model in models])
    arrays = [model.values.astype(NATIVE[common]) for model in models]
    origin = None if base is None else base.values.astype(NATIVE[common])
    source = choose(
        name, arrays, origin, weights=weights or [1.0] * len(models), resample=resample, seed=seed
    )
    stacked = np.stack([*arrays, arrays[0] if origin is None else origin])
    values = np.take_along_axis(stacked, source[None], axis=0)[0]
    counts = np.bincount(source, minlength=len(models) + 1).tolist()
    return of_values(_output(common, dtype), values, models[0].shape), counts


def average(
    models: Sequence[Tensor], *, weights: Sequence[float] = (), normalize: bool = True, dtype: str = "auto"
) -> Tensor:
    """The weighted mean, one rounded addition and multiplication at a time."""
    dtypes = [model.dtype for model in models]
    accumulator: Any = np.float64 if "F64" in dtypes else np.float32
    weights = weights or [1.0] * len(models)
    total = math.fsum(weights) if normalize else 1.0
    result = np.zeros(len(models[0].values), accumulator)
    for model, weight in zip(models, weights, strict=True):
        result = result + accumulator(weight / total) * model.values.astype(accumulator)
    return of_values(_output(working(dtypes), dtype), result, models[0].shape)


def _output(common: str, dtype: str) -> str:
    return common if dtype == "auto" or common not in FLOATS or common.startswith("F8") else dtype.upper()


def expected(
    models: Sequence[Mapping[str, Tensor]], base: Mapping[str, Tensor], **options: Any
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """A whole model by ``select``, in the order of the first one, and its counts by tensor."""
    tensors, counts = {}, {}
    for name in models[0]:
        own = [model[name] for model in models]
        tensors[name], counts[name] = select(name, own, base.get(name), **options)
    return tensors, counts
