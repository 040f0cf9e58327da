from __future__ import annotations

import json
from pathlib import Path

import pytest

from plait.errors import CheckpointMalformed, CheckpointUnsupported, PlaitError, SourceMissing
from plait_workers.checkpoint.model import is_plain_name
from tests.support.checkpoints import INDEX, file_bytes, random_tensor, write_model
from tests.workers.checkpoint_model.test_model import TENSORS, load, write_index


def refused(folder: Path, kind: type[PlaitError]) -> PlaitError:
    with pytest.raises(kind) as error:
        load(folder)
    assert type(error.value) is kind
    assert str(folder) in str(error.value)
    return error.value


LEAVING = [
    "../other/model-00001-of-00003.safetensors",
    "..",
    "/etc/passwd",
    "/model-00001-of-00003.safetensors",
    "sub/model.safetensors",
    "sub\\model.safetensors",
    "C:model.safetensors",
    "file://model.safetensors",
    "./model-00001-of-00003.safetensors",
    "",
    ".safetensors/..",
    "a\0.safetensors",
    "a\n.safetensors",
    "\ud800.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "model-00001-of-00003",
]


class TestIndex:
    @pytest.mark.parametrize("key", LEAVING)
    def test_files_lie_in_the_folder_itself(self, tmp_path: Path, key: str) -> None:
        write_model(tmp_path, TENSORS, shards=3)
        weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
        weight_map["layers.1.bias"] = key
        write_index(tmp_path, weight_map)
        assert "layers.1.bias" in str(refused(tmp_path, CheckpointMalformed))

    def test_pickled_shards_are_told_what_to_do(self, tmp_path: Path) -> None:
        write_model(tmp_path, TENSORS, shards=3)
        (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
        write_index(tmp_path, {"a": "pytorch_model.bin"})
        assert "save_pretrained" in str(refused(tmp_path, CheckpointMalformed))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "{}",
            "null",
            '{"weight_map": {}}',
            '{"weight_map": []}',
            '{"weight_map": {"a": 1}}',
            '{"weight_map": {"a": null}}',
            '{"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}}',
            "[" * 100_000,
            '{"weight_map": ' + "1" * 5000 + "}",
            "\ufeff{}",
        ],
        ids=lambda text: text[:30],
    )
    def test_what_is_no_index(self, tmp_path: Path, text: str) -> None:
        (tmp_path / INDEX).write_text(text)
        assert INDEX in str(refused(tmp_path, CheckpointMalformed))
        (tmp_path / INDEX).write_bytes(b"\xff\xfe" + text.encode())
        refused(tmp_path, CheckpointMalformed)

    def test_a_shard_is_missing(self, tmp_path: Path) -> None:
        write_model(tmp_path, TENSORS, shards=3)
        (tmp_path / "model-00002-of-00003.safetensors").unlink()
        assert "model-00002-of-00003.safetensors" in str(refused(tmp_path, SourceMissing))
        (tmp_path / "model-00002-of-00003.safetensors").symlink_to("nowhere")
        refused(tmp_path, SourceMissing)

    def test_a_name_too_long_for_any_file(self, tmp_path: Path) -> None:
        write_index(tmp_path, {"a": "9" * 5000 + ".safetensors"})
        refused(tmp_path, SourceMissing)

    def test_a_tensor_that_its_file_lacks(self, tmp_path: Path) -> None:
        write_model(tmp_path, TENSORS, shards=3)
        weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
        write_index(tmp_path, {**weight_map, "no.such": "model-00001-of-00003.safetensors"})
        assert "no.such" in str(refused(tmp_path, CheckpointMalformed))
        moved = {**weight_map, "layers.0.bias": "model-00003-of-00003.safetensors"}
        write_index(tmp_path, moved)
        assert "layers.0.bias" in str(refused(tmp_path, CheckpointMalformed))

    def test_a_tensor_that_the_index_lacks(self, tmp_path: Path) -> None:
        write_model(tmp_path, TENSORS, shards=3)
        weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
        del weight_map["layers.2.ids"]
        write_index(tmp_path, weight_map)
        assert "layers.2.ids" in str(refused(tmp_path, CheckpointMalformed))

    @pytest.mark.parametrize("key", ["a.safetensors", "b.safetensors"])
    def test_two_files_with_a_tensor_of_one_name(self, tmp_path: Path, key: str) -> None:
        twice = random_tensor("F32", (2,), "twice")
        (tmp_path / "a.safetensors").write_bytes(file_bytes({"twice": twice, "only a": twice}))
        (tmp_path / "b.safetensors").write_bytes(file_bytes({"twice": twice, "only b": twice}))
        write_index(tmp_path, {"twice": key, "only a": "a.safetensors", "only b": "b.safetensors"})
        error = refused(tmp_path, CheckpointMalformed)
        assert "two files" in str(error)
        assert "twice" in str(error)


class TestNoModel:
    @pytest.mark.parametrize(
        "name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt", "a.pkl"]
    )
    def test_pickles_are_not_read(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\x80\x04.")
        (tmp_path / "config.json").write_text("{}")
        error = refused(tmp_path, CheckpointUnsupported)
        assert name in str(error)
        assert error.hint is not None
        assert "save_pretrained" in error.hint

    @pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt"])
    def test_not_every_pickle_is_a_model(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\x80\x04.")
        refused(tmp_path, SourceMissing)

    def test_an_adapter(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_model.safetensors").write_bytes(file_bytes(TENSORS))
        (tmp_path / "adapter_config.json").write_text("{}")
        assert "merge_and_unload" in str(refused(tmp_path, CheckpointUnsupported))

    def test_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_bytes(b"")
        for name in ("empty", "missing", "file"):
            refused(tmp_path / name, SourceMissing)
        (tmp_path / "empty" / "README.md").write_bytes(b"")
        assert "README.md" in str(refused(tmp_path / "empty", SourceMissing))

    @pytest.mark.parametrize("text", ["[]", "{", "null null", '{"a": 1, "a": 2}'])
    def test_a_config_that_is_none(self, tmp_path: Path, text: str) -> None:
        write_model(tmp_path, TENSORS)
        (tmp_path / "config.json").write_text(text)
        assert "config.json" in str(refused(tmp_path, CheckpointMalformed))
        (tmp_path / "config.json").unlink()
        assert load(tmp_path).config is None

    @pytest.mark.parametrize("data", [b"", b"1234567", b"\xff" * 8, (10).to_bytes(8, "little") + b"{}"])
    def test_a_file_that_is_none(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "model.safetensors").write_bytes(data)
        assert "model.safetensors" in str(refused(tmp_path, CheckpointMalformed))


def test_plain_names() -> None:
    assert all(map(is_plain_name, ("a", "model-1.safetensors", "été", "a b", "...", ".a")))
    assert not any(map(is_plain_name, ("", ".", "..", "a/b", "a\\b", "c:", "a\0", "a\n", "\u202e", "\ud800")))
