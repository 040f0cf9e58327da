from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from plait.errors import Cancelled, PlaitError, QuantizedSource, SourceChanged, TensorMismatch, UploadGone
from plait_workers.job import Unit
from tests.support.checkpoints import Family, make_family, write_model
from tests.workers.bench import Bench, expected, make_mixed_family


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_mixed_family(tmp_path)


def failing(bench: Bench, kind: type[PlaitError]) -> PlaitError:
    with pytest.raises(kind) as failed:
        bench.run()
    return failed.value


class TestDisagreement:
    @pytest.mark.parametrize("quantized", [False, True])
    def test_bytes_that_must_agree(self, family: Family, quantized: bool) -> None:
        """Integers under average, and codes under any method; the last byte of the last source differs."""
        for model in family.models:
            model |= {name: family.base[name] for name in ("f.ids", "g.mask")}
        changed = family.base["f.ids"]
        family.models[2]["f.ids"] = replace(changed, data=changed.data[:-1] + bytes([changed.data[-1] ^ 1]))
        for index, model in enumerate(family.models):
            write_model(family.root / f"m{index}", model)
        bench = Bench(family.spec("average"))
        tensors = tuple(replace(tensor, quantized=quantized) for tensor in bench.job.tensors)
        bench.job = replace(bench.job, tensors=tensors)
        error = failing(bench, QuantizedSource if quantized else TensorMismatch)
        assert "f.ids" in str(error)
        assert str(family.root / "m2") in str(error)
        runner = bench.runner()
        number = next(i for i, tensor in enumerate(tensors) if tensor.name == "f.ids")
        with pytest.raises(type(error)):
            runner.compare(number, runner.workspace())
        runner.compare(number + 1, runner.workspace())
        runner.readers.close()

    @pytest.mark.parametrize("method", ["select", "average"])
    @pytest.mark.parametrize("dtype", ["BF16", "I8"])
    def test_tied_weights_within_one_source(self, tmp_path: Path, dtype: str, method: str) -> None:
        """Under average I8 is copied, not merged: its copies must agree all the same."""
        embed, head = "model.embed_tokens.weight", "lm_head.weight"
        config = {"tie_word_embeddings": True}
        family = make_family(tmp_path, {embed: (dtype, (40, 9))}, config=config, kept=1.0)
        for index, model in enumerate(family.models):
            write_model(tmp_path / f"m{index}", {embed: model[embed], head: model[embed]}, config=config)
        bench = Bench(family.spec(method), part_size=100, step=64)
        bench.run()
        assert bench.files() == expected(bench.job, family.models, family.base)[0]
        data = family.models[1][embed].data
        other = replace(family.models[1][embed], data=data[:-1] + bytes([data[-1] ^ 1]))
        write_model(tmp_path / "m1", {embed: family.models[1][embed], head: other}, config=config)
        error = failing(Bench(family.spec(method), part_size=100, step=64), TensorMismatch)
        assert "ties together" in str(error)
        assert str(tmp_path / "m1") in str(error)


class TestInterruption:
    def test_stop(self, family: Family) -> None:
        def on_bytes(_count: int, unit: Unit) -> None:
            if unit.number == 3:
                bench.stop.set()

        bench = Bench(family.spec(), on_bytes=on_bytes)
        failing(bench, Cancelled)
        assert [part.number for part in bench.output.list_parts(bench.uploads[0])] == [1, 2]

    def test_progress_is_all_bytes(self, family: Family) -> None:
        told: list[int] = []
        bench = Bench(family.spec(), on_bytes=lambda count, _unit: told.append(count))
        bench.run()
        assert sum(told) == sum(shard.size for shard in bench.job.shards)

    def test_an_upload_that_is_gone(self, family: Family) -> None:
        bench = Bench(family.spec())
        bench.run(bench.job.units()[:2])
        bench.output.abort(bench.uploads[0])
        failing(bench, UploadGone)

    @pytest.mark.parametrize("source", ["m0", "m2", "base"])
    def test_a_source_that_changed_since_the_plan(self, family: Family, source: str) -> None:
        bench = Bench(family.spec())
        path = family.root / source / "model.safetensors"
        path.write_bytes(path.read_bytes())
        error = failing(bench, SourceChanged)
        assert str(path) in str(error)
        assert not bench.output.list_parts(bench.uploads[0])

    def test_a_source_that_changes_while_it_is_read(self, family: Family) -> None:
        """The part is not finished: what was read of it may be of two versions."""
        path = family.root / "m1" / "model.safetensors"

        def on_bytes(_count: int, unit: Unit) -> None:
            if unit.number == 2:
                path.write_bytes(bytes(path.stat().st_size))

        bench = Bench(family.spec(), on_bytes=on_bytes)
        failing(bench, SourceChanged)
        assert [part.number for part in bench.output.list_parts(bench.uploads[0])] == [1]
