"""Compiles the kernels when a wheel or an editable install is built.

The compiler is the one that comes with the build requirement ``ziglang``, so that nothing needs to be on the
machine; ``PLAIT_CC`` names another that knows clang's options. The library is loaded with ctypes: it depends
on no version of Python, only on the machine and its C library.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("workers/plait_workers/kernels")
LIBRARY = KERNELS / "_native.so"
# Levels of x86-64 that kernels are compiled for; a processor takes the highest that it can run.
LEVELS = {"x86_64": ("v2", "v3", "v4")}
FLAGS = (
    "-O3 -std=c11 -fPIC -fvisibility=hidden -fno-sanitize=undefined -Wall -Wextra -Werror "
    # Results are the same to the bit on every processor: each operation rounds by itself.
    "-ffp-contract=off -fno-fast-math"
)


def compile_kernels(root: Path) -> None:
    """Compile and link into ``LIBRARY``; it is replaced whole, as processes may have it mapped."""
    machine = platform.machine()
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu.2.17"]
    compiler = shlex.split(os.environ.get("PLAIT_CC", "")) or zig
    uses_zig = compiler == zig
    native = root / KERNELS / "native"
    jobs: dict[str, list[str]] = {}
    for name in ("levels", "bus_error"):
        jobs[name] = [str(native / f"{name}.c")]
    for level in LEVELS.get(machine, ("base",)):
        target = (
            (f"-mcpu=x86_64_{level}" if uses_zig else f"-march=x86-64-{level}") if level != "base" else ""
        )
        jobs[level] = [str(native / "kernels.c"), f"-DLEVEL={level}", *target.split()]
    with tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder, f"{name}.o")) for name in jobs]
        running = [
            subprocess.Popen([*compiler, *FLAGS.split(), "-c", *job, "-o", out])
            for job, out in zip(jobs.values(), objects, strict=True)
        ]
        statuses = [process.wait() for process in running]  # all of them: none is left running
        if any(statuses):
            raise RuntimeError("the kernels were not compiled; the compiler's words stand above")
        made = Path(folder, "library.so")
        subprocess.run([*compiler, "-shared", "-s", *objects, "-o", str(made)], check=True)
        beside = (root / LIBRARY).with_suffix(".new")
        beside.write_bytes(made.read_bytes())
        beside.replace(root / LIBRARY)


class KernelsHook(BuildHookInterface[Any]):
    """Makes wheels of one machine's kind that any Python takes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what the wheel is for."""
        if sys.platform != "linux":
            raise RuntimeError("Plait merges on Linux")
        compile_kernels(Path(self.root))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_17_{platform.machine()}"
        build_data["artifacts"].append(str(LIBRARY))
