"""What bit patterns mean: zero's sign, where infinities and NaN begin, for each dtype.

Kernels compare values on their bits. A form tells them how: five numbers of the dtype's width,

======  ===================================================================================
flip    what to exclusive-or a pattern with before its digits are looked at
digits  mask of the bits that tell finite from non-finite (the sign is left out)
zero    mask of the bits that tell zero from non-zero
inf     digits at or above this are not finite
nan     digits at or above this are NaN
======  ===================================================================================
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Final

import numpy as np

from plait_workers.checkpoint.dtypes import Dtype

_FLOAT_FORMS: Final[Mapping[str, tuple[int, int, int, int, int]]] = {
    "F64": (0, 2**63 - 1, 2**63 - 1, 0x7FF << 52, (0x7FF << 52) + 1),
    "F32": (0, 2**31 - 1, 2**31 - 1, 0x7F800000, 0x7F800001),
    "F16": (0, 0x7FFF, 0x7FFF, 0x7C00, 0x7C01),
    "BF16": (0, 0x7FFF, 0x7FFF, 0x7F80, 0x7F81),
    "F8_E5M2": (0, 0x7F, 0x7F, 0x7C, 0x7D),
    "F8_E4M3": (0, 0x7F, 0x7F, 0x7F, 0x7F),  # no infinity
    "F8_E5M2FNUZ": (0x7F, 0xFF, 0xFF, 0xFF, 0xFF),  # one zero; 0x80 is the only NaN
    "F8_E4M3FNUZ": (0x7F, 0xFF, 0xFF, 0xFF, 0xFF),
    "F8_E8M0": (0, 0xFF, 0xFF, 0xFF, 0xFF),  # powers of two: neither sign nor zero
}


class Form(ctypes.Structure):
    """``value_form`` of the kernels."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("flip", "digits", "zero", "inf_from", "nan_from"))


def form_of(dtype: Dtype) -> Form:
    """The form of a dtype. Integers and booleans have no NaN and one zero."""
    storage = dtype.storage
    assert storage is not None, dtype.name
    everything = int(np.iinfo(storage).max)
    return Form(*_FLOAT_FORMS.get(dtype.name, (0, 0, everything, 1, 1)))
