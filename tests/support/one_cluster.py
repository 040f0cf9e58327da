"""Of the processes that run tests side by side, one has all tests on Ray.

Two clusters on a machine are too much for it, and jobs would find the wrong one.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_OF_RAY = "tests/e2e/test_ray"


class OneCluster(LoadScopeScheduling):
    """Every test goes to whoever is free; those on Ray all to one process, first.

    The groups that xdist itself has (`--dist loadgroup`) are lost on pytest 9.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _OF_RAY if nodeid.startswith(_OF_RAY) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneCluster:
    return OneCluster(config, log)
