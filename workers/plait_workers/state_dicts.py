"""Merges torch state dicts in memory, by the same methods and to the same bits as checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from plait.errors import PlanRejected, SpecInvalid, TensorMismatch
from plait_workers.checkpoint.dtypes import DTYPES, Dtype
from plait_workers.methods import METHODS
from plait_workers.methods.base import Bits, Method, TensorContext
from plait_workers.working import working_dtype

if TYPE_CHECKING:
    import torch

_TORCH_NAMES: Final = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_INT_OF_WIDTH: Final = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}
_STRETCH: Final = 1 << 20
"""Elements that a thread merges at a time: some milliseconds, and few of them idle at a tensor's end."""


def merge_state_dicts(
    models: Sequence[Mapping[str, torch.Tensor]],
    base: Mapping[str, torch.Tensor] | None = None,
    method: Method | Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    weights: Sequence[float] | None = None,
) -> dict[str, torch.Tensor]:
    """Merge K state dicts into a new one; bit for bit what ``plait merge`` writes for the same tensors.

    The inputs are not changed. The result is on the device of the first model's tensors; the merge
    itself runs on the CPU, so that the bits do not depend on the device, on as many threads as torch
    has for its own work (``torch.set_num_threads``). Tensors that share memory are merged one by one,
    each under its own name. Memory: the result, and on other devices a copy of one tensor of each
    model at a time (pinned, for CUDA).

    Args:
        models: K state dicts with the same names and shapes.
        base: the state dict that they were fine-tuned from, for methods that need it.
        method: such as ``{"name": "select", "resample": 4}``, the default being ``select``.
        seed: of all random draws, in [0, 2**64).
        weights: (K,) as in a spec; equal if left out.

    Raises:
        PlanRejected: everything that is wrong with the arguments.
    """
    import torch

    chosen = _method(method)
    factors = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    _check(models, base, chosen, factors, seed)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        merge = _Merge(
            models=models, base=base, method=chosen, weights=tuple(factors), seed=seed, threads=threads
        )
        return {name: merge.tensor(name) for name in models[0]}


def _method(method: Method | Mapping[str, Any] | None) -> Method:
    if isinstance(method, Method):
        return method
    if not isinstance(method, Mapping | None):
        raise PlanRejected([SpecInvalid("method", expected="a mapping with a name", found=repr(method))])
    options = dict(method or {"name": "select"})
    name = options.get("name")
    if not isinstance(name, str) or name not in METHODS:
        problem = SpecInvalid("method.name", expected=f"one of {', '.join(METHODS)}", found=repr(name))
        raise PlanRejected([problem])
    try:
        return METHODS[name].model_validate(options)
    except ValueError as error:
        raise PlanRejected([SpecInvalid("method", found=str(error))]) from error


def _check(
    models: Sequence[Mapping[str, torch.Tensor]],
    base: Mapping[str, torch.Tensor] | None,
    method: Method,
    weights: Sequence[float],
    seed: int,
) -> None:
    problems: list[Any] = []
    if not models or len(weights) != len(models):
        found = f"{len(models)} models, {len(weights)} weights"
        raise PlanRejected([SpecInvalid("models", expected="one weight a model, at least one", found=found)])
    if type(seed) is not int or not 0 <= seed < 2**64:
        problems.append(SpecInvalid("seed", expected="an integer in [0, 2**64)", found=repr(seed)))
    if method.needs_base and base is None:
        problems.append(SpecInvalid("base: missing", expected=f"a state dict, for method {method.name}"))
    problems += method.check_weights(weights)
    for index, model in enumerate(models):
        if model.keys() != models[0].keys():
            names = ", ".join(sorted(model.keys() ^ models[0].keys())[:20])
            problems.append(TensorMismatch(f"model {index} has other tensors than model 0", found=names))
    for name in models[0]:
        problems += _tensor_problems(name, models, base, method)
    if problems:
        raise PlanRejected(problems)


def _tensor_problems(
    name: str,
    models: Sequence[Mapping[str, torch.Tensor]],
    base: Mapping[str, torch.Tensor] | None,
    method: Method,
) -> list[TensorMismatch]:
    sources = [model[name] for model in models if name in model]
    origin = base.get(name) if base is not None else None
    everyone = sources if origin is None else [*sources, origin]
    faults = {fault for fault in map(_fault, everyone) if fault is not None}
    if faults:
        return [TensorMismatch(f"{name}: not merged", found=", ".join(sorted(faults)))]
    shapes = {tuple(tensor.shape) for tensor in everyone}
    if len(shapes) > 1:
        return [TensorMismatch(f"{name}: shapes differ", found=str(sorted(shapes)))]
    working = working_dtype(map(_dtype, sources))
    if origin is not None and working is not None and method.needs_base and method.can_merge(working):
        dtype = _dtype(origin)
        if dtype != working and (dtype.kind != "float" or working.kind != "float"):
            return [TensorMismatch(f"{name}: the base's dtype differs", found=dtype.name)]
    return []


def _fault(value: object) -> str | None:
    """Why a value of a state dict cannot be merged; None if it can."""
    import torch

    if not isinstance(value, torch.Tensor):
        return f"an object of type {type(value).__name__}"
    if value.layout is not torch.strided or value.is_meta:
        return "a tensor without dense data"
    if str(value.dtype).removeprefix("torch.") not in _TORCH_NAMES:
        return f"a tensor of {value.dtype}"
    return None


@dataclass(frozen=True, kw_only=True)
class _Merge:
    """What all tensors of a merge have in common."""

    models: Sequence[Mapping[str, torch.Tensor]]
    base: Mapping[str, torch.Tensor] | None
    method: Method
    weights: tuple[float, ...]
    seed: int
    threads: Executor

    def tensor(self, name: str) -> torch.Tensor:
        sources = [model[name] for model in self.models]
        origin = self.base.get(name) if self.base is not None and self.method.needs_base else None
        dtypes = [_dtype(source) for source in sources]
        working = working_dtype(dtypes)
        if working is None or not all(self.method.can_merge(dtype) for dtype in dtypes):
            return _identical(name, [*sources, *([origin] if origin is not None else [])])
        context = TensorContext(
            name=name,
            inputs=tuple(dtypes),
            base=_dtype(origin) if origin is not None else None,
            working=working,
            output=working,
            weights=self.weights,
            seed=self.seed,
        )
        out = np.empty(sources[0].numel(), working.storage)
        self._fill(out, context, [_bits(source) for source in sources], origin)
        return _tensor(out, working, sources)

    def _fill(
        self, out: Bits, context: TensorContext, inputs: Sequence[Bits], origin: torch.Tensor | None
    ) -> None:
        base = None if origin is None else _bits(origin)

        def merge(first: int) -> None:
            part = slice(first, first + _STRETCH)
            counters = np.zeros(2 * len(inputs) + 2, np.int64)
            merger = self.method.merger(context)  # one thread's
            merger.merge(
                [bits[part] for bits in inputs],
                None if base is None else base[part],
                out[part],
                first,
                counters,
            )

        starts = range(0, len(out), _STRETCH)
        for _ in self.threads.map(merge, starts) if len(starts) > 1 else map(merge, starts):
            pass


def _identical(name: str, sources: Sequence[torch.Tensor]) -> torch.Tensor:
    first, bits = sources[0], _bits(sources[0])
    if not all(other.dtype == first.dtype and np.array_equal(_bits(other), bits) for other in sources[1:]):
        problem = TensorMismatch(f"{name}: not merged by this method, and not the same everywhere")
        raise PlanRejected([problem])
    return first.detach().clone()


def _dtype(tensor: torch.Tensor) -> Dtype:
    return DTYPES[_TORCH_NAMES[str(tensor.dtype).removeprefix("torch.")]]


def _bits(tensor: torch.Tensor) -> Bits:
    """A tensor's bit patterns, flat; no copy if it is contiguous and on the CPU."""
    import torch

    flat = _on_cpu(tensor.detach().resolve_neg()).contiguous().reshape(-1)
    width = flat.element_size()
    bits: Bits = flat.view(getattr(torch, _INT_OF_WIDTH[width])).numpy().view(f"u{width}")
    return bits


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy: CUDA fills pinned memory ten times as fast; torch keeps it for the next one."""
    import torch

    if not tensor.is_cuda:
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)


def _tensor(bits: Bits, dtype: Dtype, sources: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    name = next(torch_name for torch_name, ours in _TORCH_NAMES.items() if ours == dtype.name)
    width = dtype.itemsize
    signed = torch.from_numpy(bits.view("u1" if width == 1 else f"i{width}"))
    return signed.view(getattr(torch, name)).reshape(sources[0].shape).to(sources[0].device)
