"""A thread's buffers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(kw_only=True)
class Workspace:
    """A thread's buffers: made once, reused for every unit."""

    step_bytes: int
    num_sources: int
    # Sources start at different offsets of a page, or loads and stores would look alike to the CPU.
    _scratch: list[memoryview] = field(default_factory=list)

    def __post_init__(self) -> None:
        for source in range(self.num_sources + 1):
            stagger = 64 * (2 * source + 1) % 4096
            buffer = np.empty(self.step_bytes + 4096 + 64, np.uint8)
            start = -buffer.__array_interface__["data"][0] % 64 + stagger
            self._scratch.append(buffer.data[start : start + self.step_bytes])

    def scratch(self, source: int, size: int) -> memoryview:
        """``size`` bytes for a source; the last one is spare."""
        return self._scratch[source][:size]


def workspace_bytes(step_bytes: int, num_sources: int) -> int:
    """Memory of a :class:`Workspace`."""
    return (num_sources + 1) * (step_bytes + 4096 + 64)
