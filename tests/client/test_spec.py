"""The merge spec: what it holds, how its keys agree, and that it comes back from its own YAML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plait.errors import PlaitError, PlanRejected
from plait.spec import MergeSpec, MethodSpec, Source, SourceGlob, load_spec

FULL = """\
models:
  - s3://runs/order-00
  - {uri: s3://runs/order-01, weight: 2.0}
  - {glob: "s3://runs/order-0[2-9]", weight: 0.5}
base: s3://models/llama
method:
  name: select
  resample: 4
output: s3://models/merged
seed: 18446744073709551615
dtype: bfloat16
shard_size: 1.5GB
part_size: 64 KiB
on_missing: keep-base
copy_from: s3://runs/order-01/
"""
SMALL: dict[str, Any] = {"models": ["/a", "/b"], "output": "/o", "method": {"name": "average"}}


class Select(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: Literal["select"] = "select"
    resample: Annotated[int, Field(ge=0, le=64)] | Literal["unlimited"] = 1


class Average(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: Literal["average"] = "average"
    normalize: bool = True


METHODS: dict[str, type[BaseModel]] = {"select": Select, "average": Average}


def problems(text: str, **kwargs: Any) -> list[str]:
    with pytest.raises(PlanRejected) as caught:
        load_spec(text, **kwargs)
    assert all(problem.kind == "spec-invalid" for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def test_every_key_is_read() -> None:
    spec = load_spec(FULL)
    assert spec.models == (
        Source(uri="s3://runs/order-00"),
        Source(uri="s3://runs/order-01", weight=2.0),
        SourceGlob(glob="s3://runs/order-0[2-9]", weight=0.5),
    )
    assert spec.base == "s3://models/llama"
    assert spec.method == MethodSpec(name="select", resample=4)
    assert spec.method.options == {"resample": 4}
    assert (spec.output, spec.seed, spec.dtype) == ("s3://models/merged", 2**64 - 1, "bf16")
    assert (spec.shard_size, spec.part_size) == (1_500_000_000, 65_536)
    assert (spec.on_missing, spec.copy_from) == ("keep-base", "s3://runs/order-01/")
    assert str(spec.models[0].location) == "s3://runs/order-00"


def test_what_is_left_out_has_its_default() -> None:
    spec = MergeSpec(**SMALL)
    assert spec == load_spec("models: [/a, /b]\noutput: /o\nmethod: {name: average}\n")
    assert (spec.base, spec.seed, spec.dtype, spec.shard_size) == (None, 0, "auto", 5_000_000_000)
    assert (spec.part_size, spec.on_missing, spec.copy_from) == (None, "error", None)
    assert [model.weight for model in spec.models] == [1.0, 1.0]


def test_a_spec_is_immutable_and_hashable() -> None:
    spec = load_spec(FULL)
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 1  # type: ignore[misc]
    assert hash(spec) == hash(load_spec(FULL))


@pytest.mark.parametrize("spelling", ["bf16", "BF16", "bfloat16", "BFloat16"])
def test_dtypes_have_one_spelling(spelling: Any) -> None:
    assert MergeSpec(**SMALL, dtype=spelling).dtype == "bf16"


@pytest.mark.parametrize("methods", [None, METHODS])
def test_a_spec_comes_back_from_its_yaml_and_json(methods: dict[str, type[BaseModel]] | None) -> None:
    for text in (FULL, "models: [/a]\noutput: /o\nmethod: {name: average}\n"):
        spec = load_spec(text, methods=methods)
        assert load_spec(spec.to_yaml(), methods=methods) == spec
        assert MergeSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


def test_the_yaml_is_as_a_person_would_write_it() -> None:
    assert MergeSpec(**SMALL, part_size="64KiB").to_yaml() == (
        "models:\n- /a\n- /b\nmethod:\n  name: average\noutput: /o\nseed: 0\ndtype: auto\n"
        "shard_size: 5 GB\npart_size: 64 KiB\non_missing: error\n"
    )


def test_the_registry_fills_in_defaults() -> None:
    spec = load_spec("models: [/a]\noutput: /o\nmethod: {name: select}\n", methods=METHODS)
    assert spec.method == MethodSpec(name="select", resample=1)
    spec = load_spec("models: [/a]\noutput: /o\nmethod: {name: select}\n")
    assert spec.method.options == {}


def test_canonical_uris_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    spec = MergeSpec(
        models=["a/", {"glob": "x/../run-*"}],
        base="S3://b/m/",
        output="o",
        method={"name": "m"},
        copy_from="a",
    )
    canonical = spec.canonical()
    assert [str(model.location) for model in canonical.models] == [f"{here}/a", f"{here}/run-*"]
    assert (canonical.base, canonical.output, canonical.copy_from) == ("s3://b/m", f"{here}/o", f"{here}/a")
    monkeypatch.chdir("/")
    assert canonical.canonical() == canonical
    assert spec.canonical() != canonical


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"models": ["/a", "file:///a/"]}, "models.1.uri: expected a model that is not in the list yet"),
        ({"models": ["/a", "/x/../a"]}, "which is models.0.uri too"),
        ({"models": [{"glob": "/r/*"}, {"glob": "/r//*"}]}, "which is models.0.glob too"),
        ({"base": "/b/"}, "base: expected a model that is not among the sub-models"),
        ({"output": "/a"}, "which is models.0"),
        ({"output": "/a/out"}, "which lies in models.0"),
        ({"output": "/"}, r"which holds models.0.uri, /a \(and 1 more\)"),
        ({"base": "/o/base"}, "which holds base"),
        ({"models": [{"glob": "/runs/*"}], "output": "/runs/merged"}, "matched by models.0"),
        ({"copy_from": "/c"}, "copy_from: expected the URI of one of the models or of the base"),
        ({"models": [{"uri": "/a", "weight": 0}]}, "models: expected a weight above 0"),
    ],
)
def test_keys_must_agree(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        MergeSpec(**{**SMALL, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "/ab"},
        {"output": "/a-merged", "base": "/bb"},
        {"copy_from": "/a/"},
        {"base": "/c", "copy_from": "file:///c"},
        {"models": [{"glob": "/runs/order-*"}], "copy_from": "/runs/order-1", "output": "/runs/merged"},
        {"models": [{"uri": "/a", "weight": 0}, "/b"]},
    ],
)
def test_keys_that_only_look_alike_agree(changes: dict[str, Any]) -> None:
    assert MergeSpec(**{**SMALL, **changes})


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), True, "2", 10**400])
def test_weights_are_finite_and_not_negative(weight: Any) -> None:
    with pytest.raises(ValidationError):
        Source(uri="/a", weight=weight)


def test_the_number_of_models_is_bounded() -> None:
    many = [f"/m/{index}" for index in range(4097)]
    assert len(MergeSpec(**{**SMALL, "models": many[:4096]}).models) == 4096
    for models in ([], many):
        with pytest.raises(ValidationError):
            MergeSpec(**{**SMALL, "models": models})


def test_no_error_repeats_a_secret() -> None:
    secret = "s3://AKIA:hunter2@bucket/x"
    with pytest.raises(ValidationError) as caught:
        MergeSpec(
            models=[secret, {"uri": "/a", "wieght": secret}],
            output=secret,
            method={"name": secret},
            base=secret,
        )
    assert "hunter2" not in str(caught.value)
    text = (
        f"models: ['{secret}', {{glob: '{secret}'}}, {{'{secret}': 1}}]\n'{secret}': 1\noutput: '{secret}'\n"
    )
    text += f"method: {{name: '{secret}', resample: '{secret}'}}\ndtype: '{secret}'\nseed: '{secret}'\n"
    for methods in (None, METHODS):
        shown = "\n".join(
            problems(text, methods=methods, overrides=[f"base={secret}", secret, f"{secret}=1"])
        )
        assert "hunter2" not in shown
        assert "s3://***@bucket/x" in shown


def test_importing_plait_is_light() -> None:
    heavy = ("yaml", "pydantic", "plait.spec", "numpy")
    code = f"import plait, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ODD_WORDS = st.sampled_from(["1e5", "yes", "null", "<<"])
WORDS = ODD_WORDS | st.text("abc/:.~?*[]@ -é'\"#{}\x85\n", min_size=1, max_size=8)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FINITE | st.text()
OPTIONS = st.dictionaries(
    WORDS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


@settings(deadline=None)
@given(
    models=st.lists(WORDS, min_size=1, max_size=4),
    weights=st.lists(st.floats(0, 1e300), min_size=4, max_size=4),
    output=WORDS,
    options=OPTIONS,
    seed=st.integers(0, 2**64 - 1),
    sizes=st.tuples(st.integers(1000, 2**62), st.none() | st.integers(65_536, 2**62)),
)
def test_any_spec_comes_back_from_its_yaml(
    models: list[str],
    weights: list[float],
    output: str,
    options: dict[str, Any],
    seed: int,
    sizes: tuple[int, int | None],
) -> None:
    entries = [{"uri": uri, "weight": weight} for uri, weight in zip(models, weights, strict=False)]
    method = {"name": "x", **options}
    try:
        spec = MergeSpec(
            models=entries, output=output, method=method, seed=seed, shard_size=sizes[0], part_size=sizes[1]
        )
    except ValidationError:
        return
    assert load_spec(spec.to_yaml()) == spec
    assert MergeSpec.model_validate_json(json.dumps(spec.model_dump(mode="json"))) == spec
    assert spec.canonical().canonical() == spec.canonical()


KEYS = [*MergeSpec.model_fields, "uri", "glob", "weight", "name", "resample", "int", "<uri>", "0"]
DATA = st.recursive(
    SCALARS | st.integers() | st.floats() | WORDS | st.sampled_from(["select", "/a", "s3://b/c"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | WORDS, inner, max_size=6)
    ),
    max_leaves=20,
)
OVERRIDE = st.text() | st.builds(
    "{}={}".format, st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map(".".join), st.text(max_size=9)
)


@settings(deadline=None, max_examples=300)
@given(
    text=st.binary() | st.text() | DATA.map(json.dumps) | st.just(FULL),
    overrides=st.lists(OVERRIDE, max_size=3),
    methods=st.sampled_from([None, METHODS, {}]),
)
def test_any_input_is_a_spec_or_a_plait_error(
    text: str | bytes, overrides: list[str], methods: dict[str, type[BaseModel]] | None
) -> None:
    try:
        spec = load_spec(text, overrides=overrides, methods=methods)
    except PlaitError as error:
        json.dumps(error.to_json())
        return
    assert isinstance(spec, MergeSpec)
