from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import CheckpointMalformed
from plait_workers.checkpoint.model import (
    Checkpoint,
    HeaderCache,
    load_checkpoint,
    natural_key,
)
from plait_workers.storage.local import LocalStore
from tests.support.checkpoints import INDEX, Tensor, file_bytes, random_tensor, write_model

TENSORS = {
    f"layers.{i}.{name}": random_tensor(dtype, shape, f"{i}/{name}")
    for i in range(3)
    for name, dtype, shape in (("weight", "BF16", (7, 5)), ("bias", "F32", (3,)), ("ids", "I64", ()))
}


def load(folder: Path, known: HeaderCache | None = None) -> Checkpoint:
    return load_checkpoint(LocalStore(folder), known)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor where the checkpoint says that it lies."""
    checkpoint = load(folder)
    found = {}
    for row, name in enumerate(checkpoint.names):
        assert checkpoint.rows[name] == row
        file = checkpoint.files[checkpoint.file[row]]
        data = (folder / file.key).read_bytes()
        assert len(data) == file.size
        start = int(checkpoint.offset[row])
        size = checkpoint.nbytes(row)
        found[name] = Tensor(checkpoint.dtypes[row].name, checkpoint.shapes[row], data[start : start + size])
    return found


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


class TestLoading:
    @pytest.mark.parametrize("shards", [1, 2, 3, 9])
    def test_tensors_are_found_in_their_places(self, tmp_path: Path, shards: int) -> None:
        write_model(tmp_path, TENSORS, shards=shards, others={"tokenizer.json": b"{}", "notes.bin": b"x"})
        assert tensors_of(tmp_path) == TENSORS
        checkpoint = load(tmp_path)
        assert checkpoint.names == list(TENSORS)
        assert len(checkpoint.files) == shards
        assert checkpoint.uri == str(tmp_path)
        assert [info.key for info in checkpoint.others] == ["config.json", "notes.bin", "tokenizer.json"]
        assert checkpoint.config is not None
        assert checkpoint.config["model_type"] == "llama"

    def test_files_are_pinned(self, tmp_path: Path) -> None:
        write_model(tmp_path, TENSORS, shards=2)
        store = LocalStore(tmp_path)
        for file in load(tmp_path).files:
            info = store.head(file.key)
            assert info is not None
            assert (file.version, file.size) == (info.version, info.size)

    def test_a_single_file_counts_more_than_an_index(self, tmp_path: Path) -> None:
        write_model(tmp_path, TENSORS, shards=3)
        alone = {"alone": random_tensor("F32", (2,), "alone")}
        write_model(tmp_path, alone)
        assert tensors_of(tmp_path) == alone

    def test_a_file_without_tensors(self, tmp_path: Path) -> None:
        write_model(tmp_path, {})
        assert load(tmp_path).names == []

    def test_folders_below_are_not_the_model(self, tmp_path: Path) -> None:
        write_model(tmp_path, TENSORS)
        write_model(tmp_path / "checkpoint-100", {"other": random_tensor("F32", (2,), "other")})
        checkpoint = load(tmp_path)
        assert checkpoint.names == list(TENSORS)
        assert [info.key for info in checkpoint.others] == ["config.json"]

    def test_links_as_in_the_cache_of_hugging_face(self, tmp_path: Path) -> None:
        write_model(tmp_path / "blobs", TENSORS, shards=3)
        snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        for number, path in enumerate(sorted((tmp_path / "blobs").iterdir())):
            blob = path.rename(tmp_path / "blobs" / f"{number:064x}")
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
        assert tensors_of(snapshot) == TENSORS
        (tmp_path / "link").symlink_to(snapshot)
        assert load(tmp_path / "link").names == list(TENSORS)

    def test_equal_headers_are_parsed_once(self, tmp_path: Path) -> None:
        known = HeaderCache()
        loaded = []
        for index in range(3):
            other = {name: random_tensor(t.dtype, t.shape, f"{index}") for name, t in TENSORS.items()}
            loaded.append(load(write_model(tmp_path / str(index), other), known))
            assert tensors_of(tmp_path / str(index)) == other
        assert loaded[0].shapes[0] is loaded[2].shapes[0]
        different = {**TENSORS, "one.more": random_tensor("F32", (2,), "more")}
        assert load(write_model(tmp_path / "d", different), known).names == list(different)

    def test_equal_headers_before_other_data_sizes(self, tmp_path: Path) -> None:
        """A cut file has the header of a whole one: the cache must not hide that."""
        known = HeaderCache()
        load(write_model(tmp_path / "a", TENSORS), known)
        path = write_model(tmp_path / "b", TENSORS) / "model.safetensors"
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(CheckpointMalformed):
            load(tmp_path / "b", known)


class TestNaturalOrder:
    @pytest.mark.parametrize(
        "names",
        [
            ["order-0", "order-1", "order-2", "order-10", "order-100"],
            ["a2b1", "a2b2", "a2b10", "a10b1"],
            ["1", "2", "10", "a", "a1"],
            ["run-8", "run-09", "run-10"],
            ["model-00001-of-00010", "model-00002-of-00010", "model-00010-of-00010"],
            ["9" * 5000, "1" + "0" * 5000],
        ],
        ids=lambda names: names[0][:20],
    )
    def test_numbers_count_by_their_value(self, names: list[str]) -> None:
        assert all(natural_key(a) < natural_key(b) for a, b in pairwise(names))

    @given(st.lists(st.text(max_size=12), max_size=8))
    def test_is_an_order_of_all_names(self, names: list[str]) -> None:
        turned = names[::-1]
        assert sorted(names, key=natural_key) == sorted(turned, key=natural_key)
        assert len({str(natural_key(name)) for name in names}) == len(set(names))

    def test_shards_are_read_in_it(self, tmp_path: Path) -> None:
        keys = [f"part-{number}.safetensors" for number in (1, 2, 10)]
        for number, key in enumerate(keys):
            (tmp_path / key).write_bytes(file_bytes({f"t{number}": random_tensor("F32", (2,), key)}))
        write_index(tmp_path, {f"t{number}": key for number, key in reversed(list(enumerate(keys)))})
        checkpoint = load(tmp_path)
        assert [file.key for file in checkpoint.files] == keys
        assert checkpoint.names == ["t0", "t1", "t2"]
