"""The door to the compiled kernels: loads their library, and lays arguments out as C has them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from plait.errors import InternalError

AnyArray = npt.NDArray[Any]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]
Pointer: TypeAlias = ctypes.c_void_p

_LIBRARY: Final = Path(__file__).with_name("_native.so")
_LEVELS: Final = {0: ("base",), 1: (), 2: ("v2",), 3: ("v3", "v2"), 4: ("v4", "v3", "v2")}
"""By what ``plait_level`` says: the levels that this processor runs, the best first."""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled library. Loading it takes a millisecond; nothing is compiled at run time.

    Raises:
        InternalError: it is not there, or not for this machine.
    """
    try:
        return ctypes.CDLL(str(_LIBRARY))
    except OSError as error:
        raise InternalError(
            "the compiled kernels cannot be loaded",
            where=str(_LIBRARY),
            found=str(error),
            hint="Install Plait again on this machine; from a checkout: make install",
        ) from error


@functools.cache
def levels() -> tuple[str, ...]:
    """The levels of processors that kernels are compiled for and that this one runs, the best first."""
    found = _LEVELS[library().plait_level()]
    if not found:
        raise InternalError("this processor is too old", expected="x86-64-v2 (SSE4.2) at least")
    return found


def kernel(name: str, level: str | None = None) -> Any:
    """A compiled function by its name, for the best level or a given one."""
    return getattr(library(), f"{name}_{level or levels()[0]}")


def address(array: AnyArray) -> int:
    """Where an array's data starts. The caller keeps the array alive while a kernel runs."""
    start: int = array.__array_interface__["data"][0]
    return start


def addresses(arrays: Sequence[AnyArray]) -> Any:
    """A C array of pointers to these arrays' data."""
    return (Pointer * len(arrays))(*map(address, arrays))


def check_lengths(n: int, *arrays: AnyArray) -> None:
    """What a kernel is about to read or write has n contiguous elements: it could not tell."""
    for array in arrays:
        if len(array) != n or (n > 1 and array.strides[0] != array.itemsize):
            raise InternalError("a kernel's arrays differ", expected=f"{n} elements", found=str(len(array)))


def check_done(status: int) -> None:
    """What a kernel returns: 0, or -1 if it found no memory for its scratch."""
    if status != 0:
        raise MemoryError("a kernel found no memory for its scratch")
