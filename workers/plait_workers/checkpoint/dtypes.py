"""The element types of the safetensors format, as its library 0.8.0 knows them.

The widths were read off the library itself, by writing files: there is no specification that is
as exact. A type that is not in this table is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

Kind = Literal["float", "float8", "int", "bool", "opaque"]
"""What arithmetic a type admits: ``opaque`` is carried as bytes and never computed with."""


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type; equal by value, and so also across processes.

    Args:
        name: the format's own name for it.
        bits: the width of one element.
        kind: what can be done with it.
    """

    name: str
    bits: int
    kind: Kind

    @property
    def itemsize(self) -> int:
        """Bytes of one element; raises ValueError where an element is not whole bytes."""
        if self.bits % 8:
            raise ValueError(f"an element of {self.name} is {self.bits} bits: it has no size in bytes")
        return self.bits // 8

    @property
    def storage(self) -> np.dtype[Any] | None:
        """The unsigned little-endian NumPy type of the same width, or None for an opaque type."""
        return None if self.kind == "opaque" else np.dtype(f"<u{self.itemsize}")

    def nbytes(self, count: int) -> int:
        """Bytes of ``count`` elements; raises ValueError where they do not fill whole bytes."""
        size, left = divmod(count * self.bits, 8)
        if left:
            raise ValueError(f"{count} elements of {self.name} do not fill whole bytes")
        return size


_TABLE: tuple[tuple[str, int, Kind], ...] = (
    ("BOOL", 8, "bool"),
    ("F4", 4, "opaque"),
    ("F6_E2M3", 6, "opaque"),
    ("F6_E3M2", 6, "opaque"),
    ("U8", 8, "int"),
    ("I8", 8, "int"),
    ("F8_E5M2", 8, "float8"),
    ("F8_E4M3", 8, "float8"),
    ("F8_E8M0", 8, "float8"),
    ("F8_E4M3FNUZ", 8, "float8"),
    ("F8_E5M2FNUZ", 8, "float8"),
    ("I16", 16, "int"),
    ("U16", 16, "int"),
    ("F16", 16, "float"),
    ("BF16", 16, "float"),
    ("I32", 32, "int"),
    ("U32", 32, "int"),
    ("F32", 32, "float"),
    ("C64", 64, "opaque"),
    ("F64", 64, "float"),
    ("I64", 64, "int"),
    ("U64", 64, "int"),
)

DTYPES: Mapping[str, Dtype] = MappingProxyType({row[0]: Dtype(*row) for row in _TABLE})
"""Every type of the format, by name, in the library's own order."""
