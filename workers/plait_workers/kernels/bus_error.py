"""What happens when a mapped page is not there: a signal handler in machine code.

A Python handler would not do: it runs after the faulting instruction is done, and that never is. This
one needs neither the GIL nor a Python frame. It looks the address up in a table of maps; if it lies in
one, a page of zeros takes the missing page's place and the map's count of hits goes up; if not, the
handler that was there before is put back, and meets the same fault again.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from plait_workers.kernels.compiled import as_pointer, callback, carray

MAX_MAPS: Final = 4096
"""Rows of the table: start, end and hits of a map, in 64-bit words, after two words of our own."""
ROW_START: Final = 2
ROW_WORDS: Final = 3
TABLE_WORDS: Final = ROW_START + ROW_WORDS * MAX_MAPS
SIGBUS: Final = 7
SET_TABLE: Final = -1
"""In the place of a signal's number: the second argument is the table's address, to be kept."""

_ZERO_PAGE: Final = 0x32  # MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
_READ: Final = 1
_PAGE: Final = np.uint64(4096)
_FAULT_ADDRESS: Final = np.uint64(16)  # of si_addr in siginfo_t, on 64-bit Linux


def _table_variable(builder: Any) -> Any:
    name = "plait_bus_error_table"
    variable = builder.module.globals.get(name)
    if variable is None:
        variable = ir.GlobalVariable(builder.module, ir.IntType(64), name=name)
        variable.linkage = "internal"
        variable.initializer = ir.Constant(ir.IntType(64), 0)
    return variable


def _keep(_context: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[0], _table_variable(builder))
        return context.get_dummy_value()

    return types.void(types.uint64), codegen


def _kept(_context: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        return builder.load(_table_variable(builder))

    return types.uint64(), codegen


_keep_table: Any = intrinsic(_keep)
_kept_table: Any = intrinsic(_kept)
_mmap: Any = types.ExternalFunction(
    "mmap",
    types.uint64(types.uint64, types.uint64, types.int32, types.int32, types.int32, types.int64),
)
_sigaction: Any = types.ExternalFunction("sigaction", types.int32(types.int32, types.uint64, types.uint64))


def _handle(number: int, info: Any, _context: Any) -> None:
    if number < 0:
        _keep_table(info)
        return
    table = carray(as_pointer(_kept_table()), (TABLE_WORDS,), np.uint64)
    address = carray(as_pointer(info + _FAULT_ADDRESS), (1,), np.uint64)[0]
    for row in range(MAX_MAPS):
        at = ROW_START + ROW_WORDS * row
        if table[at] <= address < table[at + 1]:
            table[at + 2] += np.uint64(1)
            _mmap(address & ~(_PAGE - np.uint64(1)), _PAGE, _READ, _ZERO_PAGE, -1, 0)
            return
    _sigaction(np.int32(SIGBUS), table[0], np.uint64(0))


def handler_address() -> int:
    """The handler's machine code, to be installed with SA_SIGINFO."""
    signature = types.void(types.int32, types.uint64, types.uint64)
    compiled = callback(signature, _handle)
    _HANDLERS.append(compiled)
    return int(compiled.address)


_HANDLERS: Final[list[Any]] = []  # machine code must outlive every signal
