"""A program that submits needs nothing that merges or serves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.support.scripted_service import job, scripted, status

NOT_FOR_CLIENTS = {
    "numpy",
    "torch",
    "ray",
    "botocore",
    "sqlalchemy",
    "fastapi",
    "plait_workers",
    "plait_service",
}
NOT_AT_IMPORT = NOT_FOR_CLIENTS | {"httpx", "pydantic", "tenacity", "rich", "yaml", "anyio"}
SUBMITS = """
from plait import Client, MergeSpec
with Client({url!r}) as client:
    client.submit(MergeSpec(models=["s3://a/b"], method={{"name": "average"}}, output="s3://a/c"))
"""
ASKS = """
from plait.cli import cli
from plait.cli.run import run
spec = "{{models: [s3://a/b], method: {{name: average}}, output: s3://a/c}}"
run(cli, ["submit", spec, "--detach", "--url", {url!r}])
"""


def loaded(script: str) -> set[str]:
    script += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("script", [SUBMITS, ASKS], ids=["program", "command"])
def test_to_submit(script: str) -> None:
    with scripted() as service:
        service.will(status(202, job()))
        assert not loaded(script.format(url=service.url)) & NOT_FOR_CLIENTS
        assert [seen.path for seen in service.seen] == ["/v1/jobs"]


@pytest.mark.parametrize("script", ["import plait", "import plait.cli"])
def test_to_begin(script: str) -> None:
    assert not loaded(script) & NOT_AT_IMPORT
