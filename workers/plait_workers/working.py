"""The dtype in which sub-models are compared."""

from __future__ import annotations

from collections.abc import Iterable

from plait_workers.checkpoint.dtypes import DTYPES, Dtype


def working_dtype(dtypes: Iterable[Dtype]) -> Dtype | None:
    """The dtype in which tensors of these dtypes are compared; None if they cannot be.

    One dtype stands for itself. Different ones must be F16, BF16, F32 or F64; the smallest that
    holds them all is taken (F16 with BF16 is F32).
    """
    distinct = {dtype.name: dtype for dtype in dtypes}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if any(dtype.kind != "float" for dtype in distinct.values()):
        return None
    return DTYPES["F64"] if "F64" in distinct else DTYPES["F32"]
