"""Which tensors a result has, and of which dtype."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import reference
from tests.support.checkpoints import Family, Tensor, make_family, random_tensor, read_model, write_model
from tests.support.merging import fails, merge, model_files, plan_of, problems_of

KEEP = {"on_missing": "keep-base"}


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_family(tmp_path, {"a": ("BF16", (30, 7)), "b": ("BF16", (11,)), "c": ("F32", (5, 5))})


def rewrite(family: Family, name: str, tensors: dict[str, Tensor], **options: Any) -> None:
    write_model(family.root / name, tensors, **options)


def result_of(family: Family, **changes: Any) -> dict[str, Tensor]:
    merge(family.spec(**changes))
    return read_model(family.out)


class TestNames:
    def test_everything_that_differs_is_named_at_once(self, family: Family) -> None:
        m1 = {name: tensor for name, tensor in family.models[1].items() if name != "b"}
        rewrite(family, "m1", {**m1, "extra": random_tensor("BF16", (3,), "extra")})
        rewrite(family, "m2", {**family.models[2], "a": random_tensor("BF16", (7, 30), "turned")})
        rewrite(family, "base", {**family.base, "alone": random_tensor("BF16", (3,), "alone")})
        problems = problems_of(family.spec())
        assert {problem.kind for problem in problems} == {"tensor-mismatch"}
        texts = [str(problem) for problem in problems]
        for words in (
            (str(family.root / "m1"), "missing", "found b"),
            (str(family.root / "m0"), "missing", "found extra"),
            (str(family.root / "base"), "alone", "on_missing: keep-base"),
            ("shapes differ", "a: [30, 7] in", "[7, 30] in", str(family.root / "m2")),
        ):
            assert sum(all(word in text for word in words) for text in texts) == 1, (words, texts)

    def test_shapes_of_the_base_count_whatever_is_missing(self, family: Family) -> None:
        rewrite(family, "base", {**family.base, "b": random_tensor("BF16", (12,), "longer")})
        (problem,) = problems_of(family.spec(**KEEP))
        assert "b: [11] in" in str(problem)
        assert f"[12] in {family.root / 'base'}" in str(problem)

    def test_a_tensor_of_the_base_alone_is_kept_if_the_spec_says_so(self, family: Family) -> None:
        alone = random_tensor("I64", (4,), "alone")
        rewrite(family, "base", {**family.base, "alone": alone})
        assert "alone" in str(problems_of(family.spec())[0])
        plan = plan_of(family.spec(**KEEP))
        assert any("alone" in note for note in plan.notes)
        found = result_of(family, **KEEP)
        expected, _ = reference.expected(family.models, family.base)
        assert found == {**expected, "alone": alone}

    def test_a_head_that_the_base_lacks_is_merged_without_resampling_and_noted(self, family: Family) -> None:
        rewrite(family, "base", {name: family.base[name] for name in ("a", "c")})
        method = {"name": "select", "resample": 4}
        plan = plan_of(family.spec(method))
        assert [note for note in plan.notes if " b" in note]
        merge(family.spec(method))
        base = {name: family.base[name] for name in ("a", "c")}
        expected, _ = reference.expected(family.models, base, resample=4)
        assert read_model(family.out) == expected
        assert expected["b"] == reference.select("b", [each["b"] for each in family.models], None)[0]

    def test_more_names_than_a_person_reads_are_counted(self, family: Family) -> None:
        extra = {f"x{n:03}": random_tensor("U8", (1,), str(n)) for n in range(100)}
        rewrite(family, "m1", {**family.models[1], **extra})
        (problem,) = problems_of(family.spec())
        assert "x000" in str(problem)
        assert "80 more" in str(problem)

    def test_select_with_resampling_needs_a_base_and_the_others_do_not(self, family: Family) -> None:
        (problem,) = problems_of(family.spec(base=None))
        assert problem.kind == "spec-invalid"
        assert "base" in str(problem)
        blind = result_of(family, method={"name": "select", "resample": 0}, base=None)
        expected, _ = reference.expected(family.models, {}, resample=0)
        assert blind == expected
        plan = plan_of(family.spec({"name": "average"}, base=None))
        assert not any(tensor.uses_base for tensor in plan.job.tensors)

    def test_a_model_without_tensors_is_refused(self, family: Family) -> None:
        for name in ("m0", "m1", "m2", "base"):
            rewrite(family, name, {})
        assert problems_of(family.spec())


class TestDtypes:
    @pytest.mark.parametrize(
        ("dtypes", "base", "wanted", "result"),
        [
            (("BF16", "BF16"), "BF16", "auto", "BF16"),
            (("BF16", "BF16"), "F32", "auto", "BF16"),
            (("BF16", "F16"), "BF16", "auto", "F32"),
            (("F16", "F32"), "F32", "auto", "F32"),
            (("BF16", "F64"), "BF16", "auto", "F64"),
            (("BF16", "BF16"), "BF16", "f32", "F32"),
            (("F32", "F32"), "F32", "bfloat16", "BF16"),
            (("I32", "I32"), "I32", "f16", "I32"),
            (("BOOL", "BOOL"), "BOOL", "auto", "BOOL"),
            (("F8_E4M3", "F8_E4M3"), "F8_E4M3", "f32", "F8_E4M3"),
        ],
    )
    def test_working_and_output(
        self, tmp_path: Path, dtypes: tuple[str, str], base: str, wanted: str, result: str
    ) -> None:
        models = [{"a": random_tensor(dtype, (101,), dtype + str(n))} for n, dtype in enumerate(dtypes)]
        origin = {"a": random_tensor(base, (101,), f"{dtypes[0]}0")}
        family = Family(tmp_path, origin, models)
        for name, tensors in (("base", origin), ("m0", models[0]), ("m1", models[1])):
            write_model(tmp_path / name, tensors)
        merge(family.spec(dtype=wanted))
        short = {"bfloat16": "bf16"}.get(wanted, wanted)
        expected, _ = reference.expected(models, origin, dtype=short)
        assert read_model(family.out) == expected
        assert expected["a"].dtype == result

    @pytest.mark.parametrize(
        ("dtypes", "base"),
        [
            (("I32", "I64"), "I32"),
            (("BF16", "I32"), "BF16"),
            (("BF16", "F8_E4M3"), "BF16"),
            (("BF16", "BF16"), "I32"),
            (("I32", "I32"), "I64"),
            (("F8_E4M3", "F8_E4M3"), "BF16"),
        ],
    )
    def test_what_cannot_be_compared(self, tmp_path: Path, dtypes: tuple[str, str], base: str) -> None:
        for name, dtype in (("m0", dtypes[0]), ("m1", dtypes[1]), ("base", base)):
            write_model(tmp_path / name, {"layer.a": random_tensor(dtype, (8,), name)})
        (problem,) = problems_of(Family(tmp_path, {}, [{}, {}]).spec())
        assert problem.kind == "tensor-mismatch"
        assert "layer.a" in str(problem)
        assert all(dtype in str(problem) for dtype in (*dtypes, base))

    def test_config_follows_the_output(self, tmp_path: Path) -> None:
        config = {"model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 8}
        family = make_family(tmp_path, {"a": ("BF16", (9,))}, config=config)
        merge(family.spec())
        assert (family.out / "config.json").read_bytes() == (tmp_path / "m0" / "config.json").read_bytes()
        merge(family.spec(dtype="f32"), overwrite=True)
        found = json.loads((family.out / "config.json").read_text())
        assert found == {**config, "torch_dtype": "float32"}

    @pytest.mark.parametrize("dtype", ["C64", "F4"])
    def test_opaque_types_are_copied_if_they_agree(self, tmp_path: Path, dtype: str) -> None:
        family = make_family(tmp_path, {"a": ("BF16", (9,)), "codes": (dtype, (6, 2))}, models=2)
        merge(family.spec())
        assert read_model(family.out)["codes"] == family.base["codes"]
        rewrite(family, "m1", {**family.models[1], "codes": random_tensor(dtype, (6, 2), "other")})
        with fails("tensor-mismatch") as failed:
            merge(family.spec(output=str(tmp_path / "again")))
        assert str(tmp_path / "m1") in str(failed.value)
        assert "codes" in str(failed.value)
        assert not model_files(tmp_path / "again")

    def test_the_average_of_integers_is_their_value_if_they_agree(self, tmp_path: Path) -> None:
        family = make_family(tmp_path, {"a": ("BF16", (9,)), "ids": ("I64", (300,))}, models=2)
        spec = family.spec("average", base=None)
        with fails("tensor-mismatch") as failed:
            merge(spec)
        assert "ids" in str(failed.value)
        assert not model_files(family.out)
        rewrite(family, "m1", {**family.models[1], "ids": family.models[0]["ids"]})
        merge(spec)
        averaged = reference.average([each["a"] for each in family.models])
        assert read_model(family.out) == {"a": averaged, "ids": family.models[0]["ids"]}
