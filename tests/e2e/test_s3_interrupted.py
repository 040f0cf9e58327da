"""Ctrl-C while a store does not answer, and endpoints that never do."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_cli import PLAIT, plait
from tests.support.s3_faults import Kind
from tests.support.s3_job import ReferenceJob
from tests.support.s3_labels import Label

PROBE = ".plait/probe"
LONG = {"timeout": 200, "patience": 1000}


def interrupted(spec: Path, has_begun: Callable[[], bool]) -> subprocess.CompletedProcess[str]:
    """A merge that gets SIGINT once it waits; it would wait for minutes."""
    process = subprocess.Popen(
        [PLAIT, "merge", spec, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not has_begun():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@pytest.mark.parametrize(
    "silent",
    [
        lambda label: label.operation == "HeadObject" and label.key.startswith("sources/"),
        lambda label: label.operation == "GetObject" and label.key.endswith("/model.safetensors"),
        lambda label: label.operation == "CompleteMultipartUpload" and PROBE in label.key,
        lambda label: label.operation == "GetObject" and re.match("bytes=[1-9]", label.detail),
        lambda label: label.operation == "UploadPart" and PROBE not in label.key,
        lambda label: label.operation == "CompleteMultipartUpload" and PROBE not in label.key,
    ],
    ids=["planning", "headers", "looking what the store can do", "ranges", "a part", "publishing"],
)
def test_nobody_is_waited_for(job: ReferenceJob, tmp_path: Path, silent: Callable[[Label], bool]) -> None:
    spec = tmp_path / "merge.yaml"
    spec.write_text(json.dumps(job.spec(storage=LONG)))
    with job.by_proxy(lambda label: Kind.TIMEOUT if silent(label) else None) as proxy:
        done = interrupted(spec, lambda: bool(proxy.struck))
    assert done.returncode == 130, done
    assert done.stderr.strip().startswith("cancelled: ")
    assert json.loads(done.stdout)["error"]["kind"] == "cancelled"
    if silent(Label("CompleteMultipartUpload", PROBE)):
        assert [upload.key.split("-")[0] for upload in job.clean().ours] == [PROBE]
    job.run()
    job.check()
    job.clear()


def test_an_endpoint_that_never_answers_is_given_up_soon(
    job: ReferenceJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default a store is asked for five minutes; not one of which nobody has ever heard."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        storage = {"endpoint_url": f"http://127.0.0.1:{nobody.getsockname()[1]}"}
        spec = tmp_path / "merge.yaml"
        spec.write_text(json.dumps(job.spec(storage=storage)))
        for name, value in job.bucket.access.environment.items():
            monkeypatch.setenv(name, value)
        done = plait("plan", spec)
    assert done.returncode == 2
    assert done.stderr.startswith("store-unavailable: ")
    assert "endpoint" in done.stderr
