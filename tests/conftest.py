"""Settings of all tests: Hypothesis draws the same examples every time, and no test is timed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

import plait_workers

pytest_plugins = ["tests.support.fault_table", "tests.support.s3"]

settings.register_profile("plait", deadline=None, derandomize=True, database=None)
# To look for more: pytest --hypothesis-profile=explore
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("plait")


def pytest_configure(config: pytest.Config) -> None:
    """Drop machine code that is older than any kernel.

    Numba looks at the one file that a cached function is written in, not at those that it calls.
    """
    if hasattr(config, "workerinput"):  # the process that started this one has done it
        return
    kernels = Path(plait_workers.__file__).parent / "kernels"
    newest = max(path.stat().st_mtime for path in kernels.glob("*.py"))
    for index in (kernels / "__pycache__").glob("*.nbi"):
        with suppress(FileNotFoundError):
            if index.stat().st_mtime < newest:
                index.unlink()
