from __future__ import annotations

import pickle

import numpy as np
import pytest
import safetensors

from plait_workers.checkpoint.dtypes import DTYPES, Dtype
from tests.workers.checkpoint.malformed import entry, file


def test_names_are_those_of_the_library() -> None:
    with pytest.raises(safetensors.SafetensorError, match="expected one of") as refused:
        safetensors.deserialize(file({"a": entry("?", [1], 0, 1)}, b"a"))
    listed = str(refused.value).split("expected one of")[1].split("`")[1::2]
    assert listed == list(DTYPES)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_widths_are_those_of_the_library(dtype: Dtype) -> None:
    (tensor,) = safetensors.deserialize(file({"a": entry(dtype.name, [8], 0, dtype.bits)}, bytes(dtype.bits)))
    assert tensor[1]["dtype"] == dtype.name
    for wrong in (dtype.bits - 1, dtype.bits + 1):
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(file({"a": entry(dtype.name, [8], 0, wrong)}, bytes(wrong)))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_storage_is_unsigned_and_as_wide(dtype: Dtype) -> None:
    if dtype.kind == "opaque":
        assert dtype.storage is None
    else:
        assert dtype.storage == np.dtype(f"uint{dtype.bits}")
        assert dtype.storage.itemsize == dtype.itemsize == dtype.bits // 8


def test_kinds() -> None:
    kinds: dict[str, set[str]] = {}
    for name, dtype in DTYPES.items():
        assert name == dtype.name
        kinds.setdefault(dtype.kind, set()).add(name)
    assert kinds == {
        "bool": {"BOOL"},
        "float": {"F16", "BF16", "F32", "F64"},
        "float8": {"F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"},
        "int": {"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"},
        "opaque": {"F4", "F6_E2M3", "F6_E3M2", "C64"},
    }


def test_sizes_in_whole_bytes_only() -> None:
    assert DTYPES["C64"].itemsize == 8
    assert DTYPES["BF16"].nbytes(3) == 6
    assert DTYPES["F4"].nbytes(4) == 2
    assert DTYPES["F6_E3M2"].nbytes(0) == 0
    with pytest.raises(ValueError, match="6 bits"):
        _ = DTYPES["F6_E3M2"].itemsize
    with pytest.raises(ValueError, match="3 elements of F4"):
        DTYPES["F4"].nbytes(3)


def test_a_dtype_crosses_processes() -> None:
    for dtype in DTYPES.values():
        assert pickle.loads(pickle.dumps(dtype)) == dtype
