"""State dicts of every dtype, and what their tensors' bits are."""

from __future__ import annotations

import torch

State = dict[str, torch.Tensor]
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ARITHMETIC = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of the elements in row-major order, whatever the strides."""
    if not tensor.numel():
        return b""
    flat = tensor.detach().resolve_neg().contiguous().view(-1)
    return bytes(flat.view(torch.uint8).tolist())


def state(seed: int, dtypes: dict[str, torch.dtype], shape: tuple[int, ...] = (31, 5)) -> State:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, dtype in dtypes.items():
        noise = torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=generator)
        if dtype.is_floating_point:
            found[name] = (noise.float() / 16).to(dtype)
        else:
            found[name] = noise.to(dtype)
    return found
