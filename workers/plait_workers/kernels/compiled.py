"""The compiler's door: a typed ``compiled`` decorator, pointers and bit casts for kernels.

Numba is untyped; this module is the only one that talks to it, so that the rest stays strict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

AnyArray = npt.NDArray[Any]
U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]
Number: TypeAlias = Any
"""A machine number: kernels are compiled for each width, which Python's types do not tell apart."""
F64Array = npt.NDArray[np.float64]


def compiled(function: F) -> F:
    """Compile to machine code on first use, without the GIL; later processes load it from disk.

    No fast-math: additions and multiplications round one by one, in the order written.
    """
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def callback(signature: Any, function: Callable[..., Any]) -> Any:
    """Compile to a C function, now; a later process loads it from disk. It must be kept referenced."""
    return getattr(numba, "cfunc")(signature, cache=True, nopython=True)(function)  # noqa: B009


def inlined(function: F) -> F:
    """As :func:`compiled`, for helpers that become part of each caller's loop."""
    return cast(F, numba.njit(inline="always", nogil=True, error_model="numpy")(function))


carray: Any = getattr(numba, "carray")  # noqa: B009 - numba does not declare what it exports


def _as_pointer(_context: Any, address: Any) -> Any:
    """An address (uint64) as a pointer that ``carray`` takes."""

    def codegen(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.uint64), codegen


as_pointer: Any = intrinsic(_as_pointer)


def _bit_cast(name: str, source: Any, target: Any, ir_type: Any) -> Any:
    def cast_bits(_context: Any, value: Any) -> Any:
        def codegen(_ctx: Any, builder: Any, _sig: Any, args: Any) -> Any:
            return builder.bitcast(args[0], ir_type)

        return target(source), codegen

    cast_bits.__name__ = name
    return intrinsic(cast_bits)


as_f32: Any = _bit_cast("as_f32", types.uint32, types.float32, ir.FloatType())
as_u32: Any = _bit_cast("as_u32", types.float32, types.uint32, ir.IntType(32))
as_f64: Any = _bit_cast("as_f64", types.uint64, types.float64, ir.DoubleType())
as_u64: Any = _bit_cast("as_u64", types.float64, types.uint64, ir.IntType(64))


def addresses(arrays: list[AnyArray]) -> U64Array:
    """Where each array's data starts. The caller keeps the arrays alive while a kernel runs."""
    return np.array([array.__array_interface__["data"][0] for array in arrays], dtype=np.uint64)
