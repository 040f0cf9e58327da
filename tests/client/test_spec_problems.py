"""What a wrong spec is told: every problem, at its line or its flag, in plain words, with the nearest key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from pydantic import BaseModel, field_validator
from tests.client.test_spec import METHODS, SMALL

from plait.errors import PlanRejected, SpecInvalid
from plait.spec import MergeSpec, load_spec

GOOD = """\
models:
  - /runs/a
  - uri: /runs/b
    weight: 2
method:
  name: select
  resample: 4
output: /merged
"""
BAD = """\
models:
  - /runs/a
  - {uri: /runs/a/, wieght: 2}
  - uri: s3://
    weight: -1
  - {glob: "/g/*", weight: .nan}
  - 12
  - {urii: x}
  - {uri: q, glob: z}
base: file:///runs/a
method:
  name: select
  resmple: 2
  resample: 99
output: /runs/a/out
seed: -1
dtype: int8
shard_size: 12
part_size: 5 apples
on_missing: maybe
copy_from: /q
shard_sise: 1
xyzzy: 1
"""


def rejected(
    text: str, *, overrides: Sequence[str] = (), methods: Mapping[str, type[BaseModel]] | None = METHODS
) -> dict[tuple[str | None, str], SpecInvalid]:
    """Every problem, by where it is and what it says was being done."""
    with pytest.raises(PlanRejected) as caught:
        load_spec(text, name="m.yaml", overrides=overrides, methods=methods)
    assert caught.value.exit_status == 2
    found = {(problem.where, problem.doing): problem for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems), "one problem for each place"
    assert all(isinstance(problem, SpecInvalid) for problem in found.values())
    return found  # type: ignore[return-value]


def test_everything_is_reported_at_once_at_its_line() -> None:
    assert list(rejected(BAD)) == [
        ("m.yaml:3", "reading models.1.uri"),
        ("m.yaml:3", "reading models.1.wieght"),
        ("m.yaml:4", "reading models.2.uri"),
        ("m.yaml:5", "reading models.2.weight"),
        ("m.yaml:6", "reading models.3.weight"),
        ("m.yaml:7", "reading models.4"),
        ("m.yaml:8", "reading models.5.uri"),
        ("m.yaml:8", "reading models.5.urii"),
        ("m.yaml:9", "reading models.6"),
        ("m.yaml:10", "reading base"),
        ("m.yaml:13", "reading method.resmple"),
        ("m.yaml:14", "reading method.resample"),
        ("m.yaml:15", "reading output"),
        ("m.yaml:16", "reading seed"),
        ("m.yaml:17", "reading dtype"),
        ("m.yaml:18", "reading shard_size"),
        ("m.yaml:19", "reading part_size"),
        ("m.yaml:20", "reading on_missing"),
        ("m.yaml:21", "reading copy_from"),
        ("m.yaml:22", "reading shard_sise"),
        ("m.yaml:23", "reading xyzzy"),
    ]


@pytest.mark.parametrize(
    ("doing", "expected", "found"),
    [
        ("models.1.uri", "a model that is not in the list yet", "'/runs/a', which is models.0 too"),
        ("models.2.uri", "a path or a URI", "'s3://'"),
        ("models.2.weight", "at least 0", "-1"),
        ("models.3.weight", "a finite number", "nan"),
        ("models.4", "a URI, {uri: ..., weight: ...} or {glob: ..., weight: ...}", "12"),
        ("models.5.uri", "this required key", "it missing"),
        ("models.6", "either uri or glob in one entry, not both", "a mapping"),
        ("method.resample", "at most 64 or 'unlimited'", "99"),
        (
            "output",
            "a place apart from all models and the base",
            "'/runs/a/out', which lies in models.0, /runs/a (and 2 more)",
        ),
        ("seed", "at least 0", "-1"),
        ("dtype", "one of 'auto', 'bf16', 'f16', 'f32' or 'f64'", "'int8'"),
        ("shard_size", "at least 1 KB", "12"),
        ("part_size", "a size such as 5GB, 64KiB or a number of bytes", "'5 apples'"),
        ("on_missing", "one of 'error' or 'keep-base'", "'maybe'"),
        ("copy_from", "the URI of one of the models or of the base", "'/q'"),
    ],
)
def test_problems_are_in_plain_words(doing: str, expected: str, found: str) -> None:
    problem = next(p for (_, what), p in rejected(BAD).items() if what == f"reading {doing}")
    assert (problem.expected, problem.found) == (expected, found)


@pytest.mark.parametrize(
    ("doing", "hint"),
    [
        ("models.1.wieght", "Did you mean 'weight'?"),
        ("models.5.urii", "Did you mean 'uri'?"),
        ("method.resmple", "Did you mean 'resample'?"),
        ("shard_sise", "Did you mean 'shard_size'?"),
        (
            "xyzzy",
            "There are " + ", ".join(MergeSpec.model_fields),
        ),
        ("models.2.uri", "It names no bucket or host; write s3://NAME/PATH"),
    ],
)
def test_hints_name_the_nearest_key(doing: str, hint: str) -> None:
    problem = next(p for (_, what), p in rejected(BAD).items() if what == f"reading {doing}")
    assert problem.hint == hint


def test_missing_keys_say_so() -> None:
    found = rejected("seed: 1\n")
    assert list(found) == [("m.yaml:1", f"reading {key}") for key in ("models", "method", "output")]
    assert {problem.expected for problem in found.values()} == {"this required key"}


@pytest.mark.parametrize(
    ("method", "doing", "expected", "hint"),
    [
        ("{name: slect, x: 1}", "method.name", "one of average, select", "Did you mean 'select'?"),
        ("{name: ties}", "method.name", "one of average, select", "There are average, select"),
        ("{resample: 1}", "method.name", "one of average, select", None),
        ("{name: 3}", "method.name", "one of average, select", None),
        ("select", "method", "a mapping of keys to values", "Write {name: select}"),
        ("[select]", "method", "a mapping of keys to values", None),
        ("{name: average, normalize: 1}", "method.normalize", "true or false", None),
        ("{name: average, alpha: 1}", "method.alpha", "a known key", "There are name, normalize"),
        ("{name: select, resample: lots}", "method.resample", "a whole number or 'unlimited'", None),
        ("{name: select, resample: 1.0}", "method.resample", "a whole number or 'unlimited'", None),
    ],
)
def test_methods_are_checked_by_the_registry(
    method: str, doing: str, expected: str, hint: str | None
) -> None:
    found = rejected(f"models: [/a]\noutput: /o\nmethod: {method}\n")
    ((where, what), problem), *others = found.items()
    assert not others
    assert (where, what, problem.expected, problem.hint) == ("m.yaml:3", f"reading {doing}", expected, hint)


def test_without_a_registry_options_are_any_plain_data() -> None:
    text = "models: [/a]\noutput: /o\nmethod: {name: any, a: [1, {b: null}], c: 2.5}\n"
    assert load_spec(text).method.options == {"a": [1, {"b": None}], "c": 2.5}
    found = rejected(text.replace("2.5", "[.nan]"), methods=None)
    assert list(found) == [("m.yaml:3", "reading method.c")]


def test_a_methods_own_checks_are_reported() -> None:
    class Odd(BaseModel):
        name: str
        rank: int = 1

        @field_validator("rank")
        @classmethod
        def odd(cls, rank: int) -> int:
            if rank % 2 == 0:
                raise ValueError("an odd rank")
            return rank

    found = rejected("models: [/a]\noutput: /o\nmethod:\n  name: odd\n  rank: 2\n", methods={"odd": Odd})
    problem = found["m.yaml:5", "reading method.rank"]
    assert (problem.expected, problem.found) == ("an odd rank", "2")


@pytest.mark.parametrize(
    ("text", "found"), [("", "nothing"), ("[1, 2]", "a list of 2"), ("hello", "'hello'")]
)
def test_a_spec_is_a_mapping(text: str, found: str) -> None:
    problem = rejected(text)["m.yaml:1", "reading the spec"]
    assert (problem.expected, problem.found) == ("a mapping of keys to values", found)


def test_yaml_that_cannot_be_read_is_one_problem() -> None:
    assert list(rejected("models: [/a]\nseed: &x 1\nmodels: 2\n")) == [
        ("m.yaml:2", "the YAML has an anchor, &x; write the value out where it is used")
    ]


def test_a_file_of_mistakes_is_cut_short() -> None:
    found = rejected("".join(f"k{number}: 1\n" for number in range(20_000)))
    assert len(found) == 101
    assert found["m.yaml", "reading the spec"].found == "more than 100 problems"
    problem = rejected(f"models: [{'1,' * 20_000}]\n")["m.yaml:1", "reading models"]
    assert (problem.expected, problem.found) == ("at most 4096 models", "a list of 20000")


def test_long_values_and_odd_keys_are_shortened() -> None:
    long = "x" * 500
    found = rejected(f"{long}: 1\n'a b\\n': 2\nseed: {long}\n")
    assert all(len(str(problem)) < 400 for problem in found.values())
    assert any(repr("a b\\n") in problem.doing for problem in found.values())


def test_overrides_are_put_over_the_text() -> None:
    spec = load_spec(
        GOOD,
        overrides=[
            "method.resample=unlimited",
            "models.0.weight=3",
            "models.1.weight=0.5",
            "base=/base",
            "base=",
            "seed=0x10",
            "output=s3://b/x=y",
        ],
        methods=METHODS,
    )
    assert spec.method.options == {"resample": "unlimited"}
    assert [model.weight for model in spec.models] == [3.0, 0.5]
    assert (spec.base, spec.seed, spec.output) == (None, 16, "s3://b/x=y")


def test_overrides_make_mappings_and_whole_specs() -> None:
    overrides = ["models=[/a, {uri: /b, weight: 2}]", "method.name=average", "output=/o"]
    spec = load_spec("", overrides=overrides)
    assert [model.weight for model in spec.models] == [1.0, 2.0]
    assert spec.method.name == SMALL["method"]["name"]


def test_errors_in_overrides_name_the_flag() -> None:
    overrides = [
        "method.resample=99",
        "seed=-1",
        "models.0.weight=x",
        "models.1.uri=/runs/a",
        "methd.name=x",
        "dtype=int8",
        "dtype=int4",
    ]
    assert list(rejected(GOOD, overrides=overrides)) == [
        ("--set method.resample", "reading method.resample"),
        ("--set seed", "reading seed"),
        ("--set models.0.weight", "reading models.0.weight"),
        ("--set models.1.uri", "reading models.1.uri"),
        ("--set methd.name", "reading methd"),
        ("--set dtype", "reading dtype"),
    ]


@pytest.mark.parametrize(
    ("override", "where", "expected"),
    [
        ("oops", "--set", "KEY=VALUE, as in method.resample=2"),
        ("=1", "--set", "KEY=VALUE, as in method.resample=2"),
        ("a..b=1", "--set", "KEY=VALUE, as in method.resample=2"),
        ("models.2=/c", "--set models.2", "an index below 2 after models"),
        ("models.-1=/c", "--set models.-1", "an index below 2 after models"),
        ("output.x=1", "--set output.x", "output to be a mapping or a list"),
        ("models.0.uri.x=1", "--set models.0.uri.x", "models.0.uri to be a mapping or a list"),
        ("seed=[1", "--set seed", None),
        ("seed=&x 1", "--set seed", None),
        (".".join(["a"] * 99) + "=1", "--set", "KEY=VALUE, as in method.resample=2"),
    ],
)
def test_overrides_that_cannot_be_set(override: str, where: str, expected: str | None) -> None:
    ((problem_where, _), problem), *others = rejected(GOOD, overrides=[override]).items()
    assert not others
    assert (problem_where, problem.expected) == (where, expected)


def test_bad_overrides_do_not_hide_other_problems() -> None:
    found = rejected("seed: x\n", overrides=["oops", "models=[/a]"])
    assert [where for where, _ in found] == ["--set", "m.yaml:1", "m.yaml:1", "m.yaml:1"]
