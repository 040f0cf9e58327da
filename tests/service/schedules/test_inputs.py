"""Equal inputs have equal hashes, and different ones do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plait.errors import PlanRejected, SourceMissing
from plait.spec import load_spec
from plait_service.schedules.inputs import fingerprint_inputs
from plait_workers.methods import METHODS
from plait_workers.storage.registry import Stores
from tests.service.schedules.world import write_model
from tests.support.s3 import Bucket


def inputs_of(data: dict[str, Any]) -> str:
    return fingerprint_inputs(load_spec(json.dumps(data), methods=METHODS), Stores())


def a_merge(root: str) -> dict[str, Any]:
    return {
        "models": [{"glob": f"{root}/order-*"}],
        "base": f"{root}/base",
        "method": {"name": "select", "resample": 1},
        "output": f"{root}/merged",
    }


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    for name in ("order-0", "order-1", "base", "base-2"):
        write_model(tmp_path / name, name.encode())
    return a_merge(str(tmp_path))


def test_the_same_inputs_have_the_same_hash(spec: dict[str, Any], tmp_path: Path) -> None:
    first = inputs_of(spec)
    assert first == inputs_of(spec)
    same = {
        **spec,
        "models": [str(tmp_path / "order-0"), {"uri": str(tmp_path / "order-1")}],
        "output": str(tmp_path / "elsewhere"),
        "storage": {"concurrency": 3},
        "resources": {"workers": 2},
    }
    assert inputs_of(same) == first


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"method": {"name": "select", "resample": 2}},
        {"method": {"name": "average"}},
        {"base": "base-2"},
        {"dtype": "f32"},
        {"shard_size": "1GB"},
        {"copy_from": "order-1"},
        {"models": ["order-1", "order-0"]},
        {"models": [{"glob": "order-*", "weight": 2.0}]},
        {"models": ["order-0"]},
    ],
)
def test_what_bears_on_the_result(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert inputs_of({**spec, **change}) != inputs_of(spec)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "order-1/model.safetensors").write_bytes(b"ORDER-1"),
        lambda root: (root / "base/model.safetensors").write_bytes(b"other"),
        lambda root: write_model(root / "order-2"),
        lambda root: (root / "order-0/model-00002.safetensors").write_bytes(b"1"),
        lambda root: (root / "order-0/config.json").write_text('{"a": 1}'),
        lambda root: (root / "order-0/tokenizer.json").write_text("{}"),
    ],
)
def test_what_is_read(spec: dict[str, Any], tmp_path: Path, change: Callable[[Path], object]) -> None:
    before = inputs_of(spec)
    change(tmp_path)
    assert inputs_of(spec) != before


def test_what_is_not_read(spec: dict[str, Any], tmp_path: Path) -> None:
    before = inputs_of(spec)
    (tmp_path / "order-0/_SUCCESS").touch()
    (tmp_path / "order-1/config.json").write_text('{"a": 1}')
    (tmp_path / "order-1/train.log").write_text("step 1")
    write_model(tmp_path / "order-0/checkpoint-500")
    assert inputs_of(spec) == before


def test_on_s3_the_versions_are_etags(bucket: Bucket) -> None:
    keys = [f"{name}/model.safetensors" for name in ("order-0", "order-1", "base")]
    for key in keys:
        bucket.put(key, key.encode())
    before = inputs_of(a_merge(bucket.uri()))
    bucket.put(keys[0], keys[0].encode())
    assert inputs_of(a_merge(bucket.uri())) == before
    bucket.put(keys[0], b"x" * len(keys[0]))
    assert inputs_of(a_merge(bucket.uri())) != before


def test_what_is_not_there(spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PlanRejected, match="finds no folder"):
        inputs_of({**spec, "models": [{"glob": str(tmp_path / "nothing-*")}]})
    with pytest.raises(SourceMissing, match="no model here"):
        inputs_of({**spec, "base": str(tmp_path / "nothing")})
    (tmp_path / "order-1/model.safetensors").unlink()
    with pytest.raises(SourceMissing, match="order-1"):
        inputs_of(spec)
