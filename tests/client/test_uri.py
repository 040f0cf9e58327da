"""URIs: one place, one Uri; and nothing that climbs out, chains or tells a secret."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.uri import Uri, UriError, mask_secrets, parse_glob, parse_uri

CHARACTERS = "ab0./:~@%?#*[] -_é\\"
SEGMENT = st.text("abc-_.", min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
LOCAL = st.lists(SEGMENT, max_size=4).map(lambda parts: "/" + "/".join(parts))
REMOTE = st.lists(SEGMENT, max_size=4).map(lambda parts: "s3://bucket/" + "/".join(parts))


@pytest.mark.parametrize(
    "text",
    ["/x/y", "/x/y/", "//x//y", "/x/./y", "/x/z/../y", "file:///x/y/", "FILE:///x/y", "file://localhost/x/y"],
)
def test_spellings_of_a_local_path_are_one_place(text: str) -> None:
    assert parse_uri(text) == Uri("file", "", "/x/y")
    assert str(parse_uri(text)) == "/x/y"


def test_a_relative_path_is_absolute_against_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    here = os.getcwd()
    assert str(parse_uri("a/b")) == str(parse_uri("./a/b/")) == f"{here}/a/b"
    assert str(parse_uri(".")) == here
    assert str(parse_uri("../x")) == f"{Path(here).parent}/x"
    assert str(parse_uri("~/a")) == str(parse_uri("~//a")) == "/home/me/a"
    assert str(parse_uri("./a:b")) == f"{here}/a:b"


def test_file_uris_are_unescaped_and_paths_are_not() -> None:
    spaced = Path("/a b/ü%20")
    assert parse_uri(spaced.as_uri()).local_path == spaced
    assert parse_uri("/a%20b").path == "/a%20b"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("s3://bucket", "s3://bucket"),
        ("S3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3a://bucket/a", "s3://bucket/a"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("s3://bucket/a//b", "s3://bucket/a//b"),
        ("s3://bucket/what?#", "s3://bucket/what?#"),
        ("hdfs:///data", "hdfs:///data"),
        ("hdfs://node:8020/data/a@b", "hdfs://node:8020/data/a@b"),
        (
            "abfss://container@account.dfs.core.windows.net/x",
            "abfss://container@account.dfs.core.windows.net/x",
        ),
        ("hf://org/model@main/x", "hf://org/model@main/x"),
    ],
)
def test_uris_of_stores(text: str, canonical: str) -> None:
    uri = parse_uri(text)
    assert str(uri) == canonical
    assert not uri.is_local
    with pytest.raises(ValueError, match="not a local path"):
        _ = uri.local_path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (" /x", "spaces around"),
        ("/x ", "spaces around"),
        ("/x /y/..", "spaces around"),
        ("a\nb", "control character"),
        ("/a\x00", "control character"),
        ("s3://b/\u2028", "control character"),
        ("/a\ud800", "control character"),
        ("file:///a%00b", "control character"),
        ("file:///a%ff", "not UTF-8"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3:/bucket/key", "SCHEME://"),
        ("s3:bucket", "SCHEME://"),
        ("1s3://b/x", "no valid scheme"),
        ("s 3://b/x", "no valid scheme"),
        ("://x", "no valid scheme"),
        ("file://host/x", "three slashes"),
        ("file://", "three slashes"),
        ("zip://x::s3://b/y.zip", "chains"),
        ("simplecache::s3://b/x", "chains"),
        ("s3://b/a/../c", "does not resolve"),
        ("/" + "x" * 4096, "longer than 4096"),
        ("s3://b/" + "x" * 5000, "longer than 4096"),
        ("~other/x", "another user"),
    ],
)
def test_bad_uris_say_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(UriError, match=why):
        parse_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:hunter2@bucket/x",
        "s3://AKIA:hun/hunter2@bucket/x",
        "s3://AKIA:9/hunter2@bucket/x",
        "s3://hunter2@bucket/x",
        "https://hunter2@example.org/x",
        "sftp://me:hunter2@example.org/x",
        "sftp://me:hunter2@x@example.org/x",
        "s3:/AKIA:hunter2@bucket/x",
        "AKIA:hunter2@bucket",
        "zip://a::s3://AKIA:hunter2@bucket/x",
        "s3://AKIA:hunter2" + "x" * 5000 + "@bucket",
        "https://me:pass hunter2@example.org/x",
    ],
)
def test_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UriError) as caught:
        parse_uri(text)
    assert "hunter2" not in str(caught.value) + repr(caught.value) + repr(vars(caught.value))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert "hunter2" not in mask_secrets(text)


def test_masking_leaves_the_rest() -> None:
    assert mask_secrets("s3://a:b@bucket/x") == "s3://***@bucket/x"
    assert mask_secrets("/runs/12:30@night") == "/runs/12:30@night"
    assert mask_secrets("s3://bucket/x") == "s3://bucket/x"
    signed = "https://h/x?page=2&X-Amz-Signature=abc&sig=def"
    assert mask_secrets(signed) == "https://h/x?page=2&X-Amz-Signature=***&sig=***"


def test_join_stays_below() -> None:
    assert str(parse_uri("/m").join("a.safetensors")) == "/m/a.safetensors"
    assert str(parse_uri("/").join("a")) == "/a"
    assert str(parse_uri("s3://b").join("x/y")) == "s3://b/x/y"
    assert str(parse_uri("hdfs:///").join("x")) == "hdfs:///x"
    for name in ("", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a\x00"):
        with pytest.raises(ValueError):
            parse_uri("/m").join(name)


def test_contains_goes_by_segments() -> None:
    inside, beside = ("/a/b/c", "/a/b"), ("/a/bc", "/a", "s3://a/b/c", "/A/b/c")
    assert all(parse_uri("/a/b").contains(parse_uri(text)) for text in inside)
    assert not any(parse_uri("/a/b").contains(parse_uri(text)) for text in beside)
    assert parse_uri("/").contains(parse_uri("/a"))
    assert parse_uri("s3://b").contains(parse_uri("s3://b/a"))
    assert not parse_uri("s3://b").contains(parse_uri("s3://bc/a"))


def test_patterns_match_within_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = parse_glob("s3://b/runs/order-0[2-9]*")
    assert pattern.pattern_contains(parse_uri("s3://b/runs/order-03"))
    assert pattern.pattern_contains(parse_uri("s3://b/runs/order-03-x/y"))
    for text in ("s3://b/runs/order-01", "s3://b/runs", "s3://c/runs/order-03", "s3://b/runs/x/order-03"):
        assert not pattern.pattern_contains(parse_uri(text))
    odd = tmp_path / "x[1]"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert parse_glob("run-*").pattern_contains(parse_uri("run-7"))


@given(st.text(CHARACTERS, max_size=20) | st.text() | LOCAL | REMOTE)
def test_canonical_is_final(text: str) -> None:
    for parse in (parse_uri, parse_glob):
        try:
            uri = parse(text)
        except UriError:
            continue
        assert parse_uri(str(uri)) == uri == parse_glob(str(uri))
        assert str(uri) == str(parse_uri(str(uri)))
        assert uri.contains(uri)


@given(LOCAL | REMOTE, st.lists(SEGMENT, min_size=1, max_size=3))
def test_what_is_joined_is_contained(text: str, parts: list[str]) -> None:
    folder = parse_uri(text)
    below = folder.join("/".join(parts))
    assert folder.contains(below)
    assert not below.contains(folder)
    assert parse_uri(str(below)) == below


@given(LOCAL | REMOTE, LOCAL | REMOTE)
def test_contains_is_about_whole_segments(one: str, other: str) -> None:
    first, second = parse_uri(one), parse_uri(other)
    first_parts = [first.scheme, first.authority, *filter(None, first.path.split("/"))]
    second_parts = [second.scheme, second.authority, *filter(None, second.path.split("/"))]
    assert first.contains(second) == (second_parts[: len(first_parts)] == first_parts)


@given(st.text())
def test_masking_never_fails_and_settles(text: str) -> None:
    masked = mask_secrets(text)
    assert mask_secrets(masked) == masked
