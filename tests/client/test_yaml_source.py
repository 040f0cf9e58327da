"""YAML as data: where things stand, what they mean, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plait import yaml_source
from plait.errors import SpecInvalid
from plait.yaml_source import MAX_BYTES, MAX_DEPTH, Plain, read_value, read_yaml
from plait.yaml_writer import write_yaml

SPEC = """\
# a comment
models:
  - s3://a

  - uri: s3://b
    weight: 2
  - {glob: "s3://c*",
     weight: 3}
method:
  name: select
"""
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers that PyYAML may have must say the same."""
    if request.param == "python":
        monkeypatch.setattr(yaml_source, "_LOADER", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("this PyYAML has no libyaml")


def test_places_have_lines() -> None:
    source = read_yaml(SPEC)
    assert source.data == {
        "models": ["s3://a", {"uri": "s3://b", "weight": 2}, {"glob": "s3://c*", "weight": 3}],
        "method": {"name": "select"},
    }
    assert source.line_of(("models",)) == 2
    assert source.line_of(("models", 0)) == 3
    assert source.line_of(("models", 1)) == 5
    assert source.line_of(("models", 1, "weight")) == 6
    assert source.line_of(("models", 2, "weight")) == 8
    assert source.line_of(("method", "name")) == 10


def test_what_is_absent_has_its_parents_line() -> None:
    source = read_yaml(SPEC)
    assert source.line_of(("models", 1, "wieght")) == 5
    assert source.line_of(("models", 9, "x")) == 2
    assert source.line_of(("base",)) == source.line_of(()) == 2
    assert read_yaml("").line_of(("base",)) is None
    assert read_yaml("# nothing\n").data is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("2026-11-21", "2026-11-21"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("٣", "٣"),
        ("5GB", "5GB"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: Plain) -> None:
    read = read_yaml(f"a: {text}").data
    assert read == {"a": value}
    assert isinstance(read, dict)
    assert type(read["a"]) is type(value)
    assert read_value(text, where="--set a") == value


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a: 1\nb: &x 2\n", 2, "anchor"),
        ("a: 1\nb: &x\n  c: 1\n", 2, "anchor"),
        ("a: 1\nb: *x\n", 2, "alias"),
        ("a: !!str 1\n", 1, "tag"),
        ("a: ! 1\n", 1, "tag"),
        ("a: !!python/object:os.system {}\n", 1, "tag"),
        ("a: {}\nb:\n  <<: {c: 1}\n", 3, "merge key"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' twice, first in line 1"),
        ("x:\n  - {b: 1, b: 2}\n", 2, "'b' twice"),
        ("a: 1\n2: b\n", 2, "quote it"),
        ("? [a]\n: b\n", 1, "for a key"),
        ("a: 1\nb: [1,\n", 3, "does not parse"),
        ("a: 1\nb: '\n", 3, "does not parse"),
        ("a:\n\t- b\n", 2, "does not parse"),
        ("a: 1\nb: \x00\n", 2, "does not parse"),
        (f"a: 1\nb: {'9' * 401}\n", 2, "401 digits"),
    ],
)
def test_what_is_refused_says_its_line(text: str, line: int, why: str) -> None:
    with pytest.raises(SpecInvalid, match=why) as caught:
        read_yaml(text, name="m.yaml")
    assert caught.value.where == f"m.yaml:{line}"


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read_yaml("'<<': 1").data == {"<<": 1}


@pytest.mark.parametrize(
    "text",
    [
        'a: "\\ud800"',
        'a: "\\U00110000"',
        "a: \ud800",
        b"a: \xff",
        "%YAML " + "9" * 5000 + ".1\n---\na\n",
        "a: \x80",
    ],
)
def test_odd_characters_are_refused(text: str | bytes) -> None:
    with pytest.raises(SpecInvalid):
        read_yaml(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000])
def test_nesting_is_limited_without_recursion(text: str) -> None:
    with pytest.raises(SpecInvalid):
        read_yaml(text)


def test_the_depth_limit_is_exact() -> None:
    assert read_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH).data is not None
    with pytest.raises(SpecInvalid, match="nests more than 32 levels"):
        read_yaml("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_the_size_limit_is_in_bytes() -> None:
    assert read_yaml("#" * MAX_BYTES).data is None
    with pytest.raises(SpecInvalid, match="larger than 1 MiB"):
        read_yaml("#" * (MAX_BYTES - 1) + "é")


def test_a_secret_in_a_key_is_masked() -> None:
    key = "'s3://me:hunter2@b': 1\n"
    with pytest.raises(SpecInvalid) as caught:
        read_yaml(key + key)
    assert "hunter2" not in str(caught.value)


def test_values_are_of_one_line() -> None:
    assert read_value("[1, {a: b}]", where="--set x") == [1, {"a": "b"}]
    for text in ("a: b", "- a", "{a: 1", "&x 1"):
        with pytest.raises(SpecInvalid) as caught:
            read_value(text, where="--set x")
        assert caught.value.where == "--set x"


@given(PLAIN)
def test_what_is_written_is_read_back(data: Plain) -> None:
    assert read_yaml(write_yaml(data)).data == data


def test_json_is_yaml() -> None:
    data: Plain = {"models": ["a\n", {"uri": 'b"\\', "weight": 1e-7}], "x": [None, True, -3, {}]}
    assert read_yaml(json.dumps(data)).data == data
    assert read_yaml(json.dumps(data, indent=1)).line_of(("models", 1, "weight")) == 6


@given(st.binary() | st.text() | st.text("ab:-[]{}\"'&*!#|>%@?, \n\t0.~<\\uU", max_size=40))
def test_any_input_is_read_or_refused(text: str | bytes) -> None:
    try:
        source = read_yaml(text)
    except SpecInvalid:
        return
    assert source.data is None or source.line_of(()) is not None
