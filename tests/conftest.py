"""Settings of all tests: Hypothesis draws the same examples every time, and no test is timed."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = [
    "tests.support.fault_table",
    "tests.support.s3",
    "tests.support.ray_cluster",
    "tests.support.one_cluster",
    "tests.support.postgres",
]

settings.register_profile("plait", deadline=None, derandomize=True, database=None)
# To look for more: pytest --hypothesis-profile=explore
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("plait")
