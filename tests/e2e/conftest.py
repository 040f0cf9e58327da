"""What tests of merges on S3 share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from demo.weed import Weed

    from tests.support.ray_merge import RayJob
    from tests.support.s3_job import ReferenceJob


@pytest.fixture(scope="session")
def job(weed: Weed, tmp_path_factory: pytest.TempPathFactory) -> ReferenceJob:
    """A small merge from S3 to S3, done once undisturbed."""
    from tests.support.s3 import new_bucket
    from tests.support.s3_job import make_job, make_quick

    with pytest.MonkeyPatch.context() as patched:
        make_quick(patched)
        return make_job(new_bucket(weed), tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def ray_job(weed: Weed, tmp_path_factory: pytest.TempPathFactory) -> RayJob:
    """A merge of many small parts, done once without Ray."""
    from tests.support.ray_merge import make_ray_job
    from tests.support.s3 import new_bucket

    return make_ray_job(new_bucket(weed), tmp_path_factory.mktemp("ray"))
