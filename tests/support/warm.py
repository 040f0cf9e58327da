"""Imported by the fork server alone: loads the kernels that most merges use, once for all children."""

from __future__ import annotations

import numpy as np

from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.methods import METHODS
from plait_workers.methods.base import TensorContext


def warm(method: str, dtype: str) -> None:
    """Merge four elements."""
    kind = DTYPES[dtype]
    context = TensorContext(
        name="x", inputs=(kind, kind), base=kind, working=kind, output=kind, weights=(1.0, 1.0), seed=0
    )
    bits = np.zeros(4, kind.storage)
    METHODS[method]().merger(context).merge([bits, bits], bits, bits.copy(), 0, np.zeros(6, np.int64))


for _dtype in ("BF16", "F32", "U8"):
    warm("select", _dtype)
