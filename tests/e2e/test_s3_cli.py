"""The command with buckets, as people use it: one place to another, looking, cleaning."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_cli import only_json, plait
from tests.support.checkpoints import Family, make_family
from tests.support.merging import digests
from tests.support.s3 import Bucket

SHAPES = {
    "model.layers.0.up.weight": ("BF16", (200, 300)),
    "model.layers.1.up.weight": ("BF16", (200, 300)),
    "lm_head.weight": ("F16", (301,)),
}


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, SHAPES)


@pytest.fixture
def remote(family: Family, bucket: Bucket) -> dict[str, Any]:
    """The family's spec with everything in the bucket."""
    for name in ("base", "m0", "m1", "m2"):
        bucket.upload(family.root / name, f"runs/{name}")
    models = [bucket.uri(f"runs/m{number}") for number in range(3)]
    return family.spec(models=models, base=bucket.uri("runs/base"), output=bucket.uri("out/merged"))


def write(folder: Path, data: dict[str, Any]) -> Path:
    path = folder / "merge.yaml"
    path.write_text(json.dumps(data))
    return path


def done(*arguments: object) -> subprocess.CompletedProcess[str]:
    found = plait(*arguments)
    assert found.returncode == 0, found.stderr
    return found


def weights(files: dict[str, bytes]) -> bytes:
    return files["model.safetensors"]


@pytest.mark.parametrize("way", ["s3 to s3", "s3 to local", "local to s3"])
def test_the_way_makes_no_difference(
    family: Family, remote: dict[str, Any], bucket: Bucket, tmp_path: Path, way: str
) -> None:
    done("merge", write(tmp_path, family.spec(output=str(tmp_path / "here"))))
    expected = (tmp_path / "here" / "model.safetensors").read_bytes()
    source, target = way.split(" to ")
    changes = {} if target == "s3" else {"output": str(tmp_path / "there")}
    spec = {**remote, **changes} if source == "s3" else family.spec(output=remote["output"])
    before = bucket.etags("runs/")
    done("merge", write(tmp_path, spec))
    if target == "s3":
        files = bucket.download("out/merged")
        assert not bucket.pending()
    else:
        files = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir() if path.is_file()}
    assert weights(files) == expected
    assert set(files) == {"model.safetensors", "config.json", "README.md", "plait.json"}
    assert bucket.etags("runs/") == before


def test_plan_verify_inspect(remote: dict[str, Any], bucket: Bucket, tmp_path: Path) -> None:
    spec = write(tmp_path, remote)
    shown = done("plan", spec).stdout
    assert "at S3's list price" in shown
    assert not bucket.etags("out/")
    assert not bucket.pending()
    planned = only_json(done("plan", spec, "--json"))
    assert 0 < planned["request_cost"] < 0.01
    assert planned["read_requests"] == 4
    done("merge", spec)
    verified = only_json(done("verify", remote["output"], "--sample", "1", "--json"))
    assert (verified["status"], verified["recomputed"]) == ("done", verified["parts"])
    inspected = only_json(done("inspect", bucket.uri("runs/m0"), "--base", bucket.uri("runs/base"), "--json"))
    (group, *_) = inspected["models"][0]["groups"]
    assert 0 < group["changed"] < group["compared"]
    assert "already there" in done("merge", spec).stdout


def test_sources_are_verified(remote: dict[str, Any], bucket: Bucket, tmp_path: Path) -> None:
    """Those that the store keeps a checksum of; of others the manifest tells what was read."""
    body = bucket.get("runs/m1/model.safetensors")
    upload = bucket.begin_upload("runs/m1/model.safetensors")
    names = {"Bucket": bucket.name, "Key": "runs/m1/model.safetensors", "UploadId": upload}
    part = bucket.client.upload_part(**names, PartNumber=1, Body=body)
    bucket.client.complete_multipart_upload(
        **names, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    done("merge", write(tmp_path, remote))
    manifest = json.loads(bucket.get("out/merged/plait.json"))
    files = [source["files"][0] for source in manifest["sources"]]
    assert all(("crc64nvme" in file) or ("crc32" in file) for file in files)
    assert [file["verified"] for file in files].count(True) >= 3


def test_globs(remote: dict[str, Any], bucket: Bucket, tmp_path: Path) -> None:
    spec = write(tmp_path, {**remote, "models": [{"glob": bucket.uri("r*/m[0-9]")}]})
    assert only_json(done("plan", spec, "--json"))["models"] == remote["models"]
    nothing = plait("plan", write(tmp_path, {**remote, "models": [{"glob": bucket.uri("runs/x*")}]}))
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("source-missing: ")


def test_secrets_are_nowhere(
    remote: dict[str, Any], bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write(tmp_path, remote)
    shown = [done("plan", spec), done("merge", spec, "--json")]
    secret = bucket.access.secret_key
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-one")
    shown.append(plait("plan", spec, "--debug"))
    assert shown[-1].returncode == 2 or shown[-1].returncode == 1
    assert "access-denied" in shown[-1].stderr
    text = "".join(run.stdout + run.stderr for run in shown)
    text += "".join(data.decode("latin-1") for data in bucket.download("out/merged").values())
    assert secret not in text
    assert "a-wrong-one" not in text


class TestClean:
    def test_an_output_that_nobody_holds(
        self, remote: dict[str, Any], bucket: Bucket, tmp_path: Path
    ) -> None:
        stranger = bucket.begin_upload("out/merged/model.safetensors")
        ours = bucket.begin_upload("out/merged/model.safetensors")
        elsewhere = bucket.begin_upload("out/other/model.safetensors")
        bucket.put("out/merged/.plait/claim-000001.json", b'{"fingerprint": "f", "driver": "d"}')
        listed = {"model.safetensors": {"id": ours, "size": 10}}
        bucket.put("out/merged/.plait/uploads-000001.json", json.dumps(listed).encode())
        found = only_json(done("clean", remote["output"], "--json"))
        assert [upload["id"] for upload in found["uploads"]] == [ours]
        assert [upload["id"] for upload in found["unlisted_uploads"]] == [stranger]
        assert len(bucket.pending()) == 3
        assert "--yes" in done("clean", remote["output"]).stdout
        done("clean", remote["output"], "--yes")
        assert {number for _, number in bucket.pending()} == {stranger, elsewhere}
        assert not bucket.etags("out/")
        unknown = plait("clean", remote["output"], "--yes", "--upload-id", "none-of-this-name")
        assert unknown.returncode == 2
        done("clean", remote["output"], "--yes", "--upload-id", stranger)
        assert {number for _, number in bucket.pending()} == {elsewhere}
        assert "nothing to clean" in done("clean", remote["output"]).stdout

    def test_an_output_that_somebody_holds(
        self, remote: dict[str, Any], bucket: Bucket, tmp_path: Path
    ) -> None:
        bucket.put("out/merged/.plait/claim-000001.json", b'{"fingerprint": "f", "driver": "d"}')
        bucket.put("out/merged/.plait/alive-000001-d", b"")
        refused = plait("clean", remote["output"], "--yes")
        assert refused.returncode == 1
        assert refused.stderr.startswith("output-claimed: ")
        assert len(bucket.etags("out/")) == 2

    def test_a_result_stays(self, remote: dict[str, Any], bucket: Bucket, tmp_path: Path) -> None:
        done("merge", write(tmp_path, remote))
        before = bucket.etags("out/")
        done("clean", remote["output"], "--yes")
        assert bucket.etags("out/") == before

    def test_a_local_output(self, family: Family, tmp_path: Path) -> None:
        done("merge", write(tmp_path, family.spec()))
        before = digests(family.out)
        (family.out / ".plait").mkdir()
        (family.out / ".plait" / "claim-000001.json").write_text('{"fingerprint": "f", "driver": "d"}')
        assert "1 file" in done("clean", family.out).stdout
        done("clean", family.out, "--yes")
        assert digests(family.out) == before
        assert not (family.out / ".plait" / "claim-000001.json").exists()
