"""The commit: one result, all of it or nothing, whoever else is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import reference
from tests.support.checkpoints import Family, make_family, read_model, write_model
from tests.support.merging import digests, fails, merge, model_files, prepared_of, working_files
from tests.support.stores import Killed, dying_after, on_full_disk

SHAPES = {"a": ("BF16", (200, 257)), "odd": ("U8", (33,)), "b": ("F32", (9_001,)), "c": ("BF16", (64, 9))}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, SHAPES, others={"tokenizer.json": b"{}"})


def spec_of(family: Family, **changes: Any) -> dict[str, Any]:
    """Three shards, several parts."""
    return family.spec(**{"shard_size": 36_100, "part_size": "64KiB", **changes})


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


class TestWhatLiesThere:
    def test_another_result_is_not_touched(self, family: Family) -> None:
        merge(spec_of(family))
        before = stamps(family.out)
        with fails("output-exists") as failed:
            merge(spec_of(family, seed=1))
        assert failed.value.exit_status == 2
        assert "--overwrite" in str(failed.value)
        assert str(family.out) in str(failed.value)
        assert stamps(family.out) == before

    @pytest.mark.parametrize(
        "name", ["config.json", INDEX, "README.md", "tokenizer.json", "model-00001-of-00003.safetensors"]
    )
    def test_a_file_of_somebody_else_is_not_touched(self, family: Family, name: str) -> None:
        family.out.mkdir()
        (family.out / name).write_bytes(b"mine")
        with fails("output-exists") as failed:
            merge(spec_of(family))
        assert str(family.out / name) in str(failed.value)
        assert digests(family.out).keys() == {name}
        assert (family.out / name).read_bytes() == b"mine"
        assert not working_files(family.out)

    @pytest.mark.parametrize("name", ["model.safetensors", "model-00007-of-00009.safetensors"])
    def test_tensor_files_of_other_names_would_be_mixed_with_ours(self, family: Family, name: str) -> None:
        family.out.mkdir()
        (family.out / name).write_bytes(b"mine")
        with fails("output-exists"):
            merge(spec_of(family))
        assert digests(family.out).keys() == {name}

    def test_what_has_nothing_to_do_with_models_may_stay(self, family: Family) -> None:
        family.out.mkdir()
        (family.out / "notes.txt").write_text("mine")
        merge(spec_of(family))
        assert (family.out / "notes.txt").read_text() == "mine"

    def test_the_same_merge_again_writes_nothing(self, family: Family) -> None:
        first = merge(spec_of(family))
        before = stamps(family.out)
        again = merge(spec_of(family))
        assert again.already_done
        assert again.fingerprint == first.fingerprint
        assert again.merged_parts == again.resumed_parts == 0
        assert stamps(family.out) == before


class TestOverwrite:
    def test_nothing_of_the_old_result_remains(self, family: Family) -> None:
        merge(spec_of(family))
        assert len(list(family.out.glob("*.safetensors"))) == 3
        (family.root / "m0" / "tokenizer.json").unlink()
        spec = spec_of(family, shard_size="1GB", seed=1)
        merge(spec, overwrite=True)
        names = {"config.json", "model.safetensors", "README.md", "plait.json"}
        assert {path.name for path in family.out.iterdir()} == names
        expected, _ = reference.expected(family.models, family.base, seed=1)
        assert read_model(family.out) == expected

    def test_while_it_runs_there_is_no_model_rather_than_a_mixed_one(self, family: Family) -> None:
        merge(spec_of(family))
        seen: dict[str, set[str]] = {}
        merge(
            spec_of(family, seed=1),
            overwrite=True,
            on_step=lambda name: seen.setdefault(name, model_files(family.out)) and None,
        )
        assert len(seen["claim"]) == 5
        assert not seen["check"]
        assert not seen["units"]

    def test_the_old_result_gives_its_space(self, family: Family) -> None:
        merge(spec_of(family))
        merge(on_full_disk(prepared_of(spec_of(family, seed=1))), overwrite=True)
        expected, _ = reference.expected(family.models, family.base, seed=1)
        assert read_model(family.out) == expected

    @pytest.mark.parametrize("deletions", range(8))
    def test_it_may_be_killed_while_it_removes(self, family: Family, deletions: int) -> None:
        merge(spec_of(family))
        spec = spec_of(family, shard_size="1GB", seed=1)
        with pytest.raises(Killed):
            merge(dying_after(prepared_of(spec), deletions), overwrite=True)
        merge(spec, overwrite=True)
        expected, _ = reference.expected(family.models, family.base, seed=1)
        assert read_model(family.out) == expected
        assert len(list(family.out.glob("*.safetensors"))) == 1
        assert not working_files(family.out)


class TestOrder:
    def test_shards_then_small_files_then_index_config_and_manifest(self, family: Family) -> None:
        prepared = prepared_of(spec_of(family))
        sizes = {shard.key: shard.size for shard in prepared.plan.job.shards}
        steps: list[str] = []

        def look(step: str) -> None:
            steps.append(step)
            there = {path.name for path in family.out.iterdir()} if family.out.exists() else set()
            for name in there & sizes.keys():
                assert (family.out / name).stat().st_size == sizes[name]
            if there & {INDEX, "config.json", "tokenizer.json"}:
                assert sizes.keys() <= there
            if "config.json" in there:
                assert INDEX in there
            if "plait.json" in there:
                assert {*sizes, INDEX, "config.json", "tokenizer.json", "README.md"} <= there
                assert step == "clean up"
            if "units" not in steps or step == "units":
                assert not there - {".plait"}

        merge(prepared, on_step=look)
        assert steps == [
            *("claim", "check", "uploads", "resume", "units", "sources", "publish"),
            *(f"complete {name}" for name in sizes),
            *("put README.md", "put tokenizer.json", f"put {INDEX}", "put config.json"),
            *("look", "put plait.json", "clean up"),
        ]
        assert not working_files(family.out)

    def test_a_single_shard_needs_no_index(self, family: Family) -> None:
        merge(spec_of(family, shard_size="1GB"))
        names = {"config.json", "tokenizer.json", "model.safetensors", "README.md", "plait.json"}
        assert {path.name for path in family.out.iterdir()} == names

    def test_the_manifest_is_the_same_bytes_for_the_same_job(self, family: Family) -> None:
        merge(spec_of(family))
        before = digests(family.out)
        merge(spec_of(family), overwrite=True, threads=1)
        assert digests(family.out) == before
        manifest = json.loads((family.out / "plait.json").read_text())
        assert [source["role"] for source in manifest["sources"]] == ["sub-model"] * 3 + ["base"]
        assert {shard["name"] for shard in manifest["shards"]} == set(before) & model_files(family.out) - {
            INDEX,
            "config.json",
        }

    def test_an_error_in_the_work_leaves_nothing_that_looks_like_a_model(self, family: Family) -> None:
        write_model(family.root / "m1", {**family.models[1], "odd": family.models[0]["odd"]})
        with fails("tensor-mismatch"):
            merge(spec_of(family, method={"name": "average"}, base=None))
        assert not model_files(family.out)
        assert not list((family.out / ".plait").glob("alive-*"))
