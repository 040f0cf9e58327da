"""Prefixes hold: what is below one passes, and nothing else does, however it is written."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plait.errors import Forbidden, SpecInvalid
from plait.spec_model import MergeSpec, MethodSpec, Source, SourceGlob
from plait.uri import Uri, parse_uri
from plait_service.api.places import authorise, prefix, prefixes
from plait_service.api.principal import Principal, anonymous
from plait_service.api.settings import Settings
from tests.service.access.hostile import HOSTILE, HOSTILE_GLOBS, PREFIXES, SCHEMES

GOOD = "s3://allowed/team/good"
SERVICE = Settings(folder=Path("/nowhere"), schemes=SCHEMES)


def principal(*places: str, write: tuple[str, ...] | None = None) -> Principal:
    read = prefixes(places)
    written = read if write is None else prefixes(write)
    return Principal(name="ci", team="ci", roles=frozenset({"submit"}), read=read, write=written)


TEAM = principal(*PREFIXES)


def raw(**keys: Any) -> MergeSpec:
    """A spec whose URIs nobody has looked at yet."""
    entries = {"models": (Source(uri=GOOD),), "output": f"{GOOD}-out", "method": MethodSpec(name="average")}
    return MergeSpec.model_construct(**{**entries, **keys})


def where(text: str) -> list[MergeSpec]:
    """Specs that name a place, each in another key. In a glob a question mark is a wildcard, and no query."""
    globs = [] if "?" in text else [raw(models=(SourceGlob.model_construct(glob=text),))]
    return [
        raw(models=(Source(uri=GOOD), Source.model_construct(uri=text))),
        raw(base=text),
        raw(copy_from=text),
        raw(output=text),
        *globs,
    ]


def passes(spec: MergeSpec, who: Principal = TEAM, service: Settings = SERVICE) -> bool:
    try:
        authorise(spec, who, service)
    except Forbidden:
        return False
    return True


class TestHostile:
    def test_the_specs_themselves_pass(self) -> None:
        assert all(passes(spec) for spec in where("s3://allowed/team/x"))
        assert all(passes(spec) for spec in where("/srv/models/x"))

    @pytest.mark.parametrize(("text", "reason"), HOSTILE, ids=[reason for _, reason in HOSTILE])
    def test_no_hostile_uri_passes(self, text: str, reason: str) -> None:
        assert not any(passes(spec) for spec in where(text)), reason

    @pytest.mark.parametrize(("text", "reason"), HOSTILE_GLOBS, ids=[reason for _, reason in HOSTILE_GLOBS])
    def test_no_hostile_glob_passes(self, text: str, reason: str) -> None:
        assert not passes(raw(models=(SourceGlob.model_construct(glob=text),))), reason

    def test_there_are_enough_and_each_once(self) -> None:
        assert len({text for text, _ in HOSTILE}) == len(HOSTILE) >= 60
        assert len({reason for _, reason in HOSTILE}) == len(HOSTILE)

    @pytest.mark.parametrize("text", [text for text, _ in HOSTILE])
    def test_what_is_malformed_is_no_prefix_either(self, text: str) -> None:
        try:
            found = prefix(text)
        except SpecInvalid:
            return
        # Well formed, and hostile only because it is not below the prefixes.
        assert prefix(str(found)) == found
        assert not any(each.contains(found) for each in TEAM.read)


def _chain(text: str) -> list[str]:
    return text.split("::")


READERS: Final[tuple[Callable[[str], list[str]], ...]] = (
    lambda text: [text],
    lambda text: [unquote(text)],
    lambda text: [unquote(unquote(text))],
    lambda text: [unquote(unquote(unquote(text)))],
    lambda text: [unicodedata.normalize("NFKC", text)],
    lambda text: [unicodedata.normalize("NFKC", unquote(text))],
    lambda text: [text.replace("\u2215", "/").replace("\u3002", ".")],
    lambda text: [text.replace("\\", "/")],
    lambda text: [text.partition("?")[0], text.partition("#")[0]],
    lambda text: [text.strip(), "".join(text.split())],
    lambda text: ["".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc"))],
    lambda text: [re.sub(r";[^/]*", "", text)],
    lambda text: [re.sub(r"(?<!:)/+", "/", text)],
    lambda text: [re.sub(r"[. ]+(?=/|$)", "", text)] if ". " in text else [text],
    _chain,
)
"""How a store, a server or a library may take a URI."""


def _is_inside(text: str) -> bool:
    """Whether a text lies below the team's folder, its dots resolved as a file system would."""
    match = re.fullmatch(r"s3://([^/]*)/?(.*)", text, re.DOTALL)
    if match is None:
        return False
    path = os.path.normpath("/" + match[2])
    return match[1] == "allowed" and (path == "/team" or path.startswith("/team/"))


PIECES = st.sampled_from(
    [
        *(
            "/",
            "//",
            "..",
            ".",
            "/../",
            "\\",
            "::",
            ":",
            "@",
            "?",
            "#",
            "%",
            "%2e",
            "%2f",
            "%252e",
            "%252f",
            ";",
        ),
        *(
            "%5c",
            "%00",
            "%c0%ae",
            "\uff0e",
            "\uff0f",
            "\u2025",
            "\u2215",
            "\u200b",
            "\u202e",
            "\n",
            "\t",
            " ",
        ),
        *("*", "[", "]", "evil", "team", "allowed", "s3://", "S3://", "file://", "x", "~", "[.]", "&", "a"),
    ]
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.lists(PIECES, max_size=6).map(lambda pieces: "s3://allowed/team/" + "".join(pieces)),
    st.lists(PIECES, max_size=6).map(lambda pieces: "s3://allowed" + "".join(pieces)),
    st.tuples(st.integers(0, 21), st.lists(PIECES, min_size=1, max_size=4)).map(
        lambda made: (
            "s3://allowed/team/x/y"[: made[0]] + "".join(made[1]) + "s3://allowed/team/x/y"[made[0] :]
        )
    ),
    st.text(max_size=12).map(lambda text: f"s3://allowed/team/{text}"),
)


class TestProperties:
    @settings(max_examples=2000, deadline=None)
    @given(TEXTS)
    @example("s3://allowed/team/x")
    def test_what_passes_lies_inside_however_it_is_read(self, text: str) -> None:
        who = principal("s3://allowed/team")
        if passes(raw(base=text), who):
            for reader in READERS:
                for read in reader(text):
                    assert _is_inside(read), read

    @settings(max_examples=500, deadline=None)
    @given(TEXTS)
    def test_what_a_glob_finds_lies_inside(self, text: str) -> None:
        who = principal("s3://allowed/team")
        if passes(raw(models=(SourceGlob.model_construct(glob=text),)), who):
            for found in ("x", "evil", "team"):
                assert _is_inside(re.sub(r"[*?]|\[.*?\]", found, text))
                assert _is_inside(re.sub(r"[*?]|\[.*?\]", found, unquote(text)))

    @settings(max_examples=300, deadline=None)
    @given(
        st.sampled_from([each for each in PREFIXES if not each.startswith("file")]),
        st.lists(st.text("abcXYZ019-_=+,é", min_size=1, max_size=6), max_size=4),
    )
    def test_what_is_plain_and_below_passes(self, place: str, parts: list[str]) -> None:
        text = "/".join([place.rstrip("/"), *(unicodedata.normalize("NFKC", part) for part in parts)])
        assert all(passes(spec) for spec in where(text))
        assert all(passes(spec) for spec in where(f"{text}/"))

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(PREFIXES), st.text("abc-_.019", min_size=1, max_size=6))
    def test_a_longer_name_is_no_part_of_it(self, place: str, more: str) -> None:
        assert not any(passes(spec) for spec in where(place.rstrip("/") + more))

    @settings(max_examples=500, deadline=None)
    @given(TEXTS)
    def test_a_prefix_is_canonical_and_read_back_as_itself(self, text: str) -> None:
        try:
            found = prefix(text)
        except SpecInvalid:
            return
        assert prefix(str(found)) == found == parse_uri(text)


class TestRules:
    def test_reading_and_writing_are_apart(self) -> None:
        who = principal("s3://in", write=("s3://out",))
        models = (Source(uri="s3://in/a"),)
        assert passes(raw(models=models, output="s3://out/x"), who)
        assert not passes(raw(models=models, output="s3://in/x"), who)
        assert not passes(raw(models=(Source(uri="s3://out/x"),), output="s3://out/y"), who)
        assert not passes(raw(models=models, output="s3://out/x", base="s3://out/b"), who)

    def test_a_token_without_prefixes_reads_and_writes_nothing(self) -> None:
        assert not passes(raw(), principal())
        admin = Principal(name="boss", team="boss", roles=frozenset({"admin"}))
        assert not passes(raw(), admin)

    def test_a_prefix_itself_is_below_itself(self) -> None:
        assert passes(
            raw(models=(Source(uri="s3://in/a"),), output="s3://out"), principal("s3://in/a", "s3://out")
        )

    def test_a_bucket_is_a_prefix_of_all_that_is_in_it(self) -> None:
        assert all(passes(spec, principal("s3://allowed/")) for spec in where("s3://allowed/any/thing"))

    def test_the_root_is_a_prefix_of_every_path(self, tmp_path: Path) -> None:
        assert all(passes(spec, principal("/", "s3://allowed")) for spec in where(str(tmp_path)))

    def test_all_refusals_are_told_together_with_what_is_allowed(self) -> None:
        who = principal("s3://in", write=("s3://out/team",))
        models = (Source(uri="s3://in/a"), Source(uri="s3://evil/a"), SourceGlob(glob="s3://in*/b"))
        spec = raw(models=models, base="/etc", output="s3://out/other")
        with pytest.raises(Forbidden) as caught:
            authorise(spec, who, Settings(folder=Path("/nowhere")))
        said = str(caught.value)
        for part in (
            "4 place(s)",
            "models[1]: 's3://evil/a' is not at or below a prefix that the token reads",
            "models[2]: 's3://in*/b' has no plain name",
            "base: '/etc' is of a scheme that is not allowed here (file)",
            "output: 's3://out/other' is not at or below a prefix that the token writes",
            "reads s3://in, and writes s3://out/team",
        ):
            assert part in said
        assert "models[0]" not in said

    def test_of_very_many_refusals_some_are_shown(self) -> None:
        models = tuple(Source(uri=f"s3://evil/{number}") for number in range(4096))
        with pytest.raises(Forbidden, match=r"^4096 place.*and 4064 more") as caught:
            authorise(raw(models=models), TEAM, SERVICE)
        assert len(str(caught.value)) < 5000

    def test_secrets_are_not_repeated(self) -> None:
        with pytest.raises(Forbidden) as caught:
            authorise(raw(base="s3://AKIA:hunter2@allowed/team/x?token=hunter2"), TEAM, SERVICE)
        assert "hunter2" not in str(caught.value)
        with pytest.raises(SpecInvalid) as invalid:
            prefix("https://me:hunter2@models.example.org/team")
        assert "hunter2" not in str(invalid.value)

    def test_a_glob_counts_by_what_stands_before_its_first_wildcard(self) -> None:
        odd = (Uri("s3", "allowed", "t*m"),)
        who = Principal(name="ci", team="ci", roles=frozenset({"submit"}), read=odd, write=TEAM.write)
        assert passes(raw(models=(Source(uri="s3://allowed/t*m/x"),)), who)
        assert not passes(raw(models=(SourceGlob(glob="s3://allowed/t*m/x"),)), who)

    def test_copies_of_a_model_are_told_once(self) -> None:
        spec = raw(models=(Source(uri="s3://evil/a"),), copy_from="s3://evil/a")
        with pytest.raises(Forbidden, match=r"^1 place"):
            authorise(spec, TEAM, SERVICE)

    def test_no_output_lies_in_the_folder_of_another_merge(self) -> None:
        for output in ("s3://allowed/team/out/.plait", "s3://allowed/team/out/.plait/x"):
            assert not passes(raw(output=output))
            assert not passes(raw(output=output), anonymous())


class TestSchemesAndEndpoints:
    @pytest.mark.parametrize("scheme", sorted(SCHEMES))
    def test_only_schemes_of_the_settings(self, scheme: str) -> None:
        text = next(each for each in (*PREFIXES, "abfs://c/x", "http://h/x") if each.startswith(f"{scheme}:"))
        rest = Settings(folder=Path("/nowhere"), schemes=SCHEMES - {scheme})
        who = principal(*PREFIXES, "abfs://c", "http://h")
        assert passes(raw(base=text), who)
        if scheme != "s3":
            assert not passes(raw(base=text), who, rest)
            assert not passes(raw(base=text), anonymous(), rest)

    def test_local_paths_are_refused_unless_they_are_allowed(self) -> None:
        remote = Settings(folder=Path("/nowhere"))
        assert not passes(raw(base="/srv/models/x"), TEAM, remote)
        assert not passes(raw(base="https://models.example.org/team/x"), TEAM, remote)
        assert not passes(raw(base="/srv/models/x"), anonymous(), remote)

    @pytest.mark.parametrize(
        ("storage", "key"),
        [
            ({"endpoint_url": "http://169.254.169.254"}, "storage.endpoint_url"),
            (
                {"buckets": {"allowed": {"endpoint_url": "https://evil.example.org"}}},
                "storage.buckets.allowed",
            ),
            ({"region": "x.evil.example.org/"}, "storage.region"),
            ({"buckets": {"allowed": {"region": "evil.example.org#"}}}, "storage.buckets.allowed.region"),
        ],
    )
    def test_no_endpoints_of_strangers(self, storage: dict[str, Any], key: str) -> None:
        spec = MergeSpec(models=[GOOD], method={"name": "average"}, output=f"{GOOD}-out", storage=storage)
        for who in (TEAM, anonymous()):
            with pytest.raises(Forbidden, match=re.escape(key)):
                authorise(spec, who, SERVICE)
        authorise(spec, TEAM, Settings(folder=Path("/nowhere"), endpoints=True))

    def test_other_options_of_stores_are_free(self) -> None:
        storage = {
            "region": "eu-central-1",
            "buckets": {"b": {"kms_key_id": "arn:aws:kms:x", "path_style": True}},
        }
        spec = MergeSpec(models=[GOOD], method={"name": "average"}, output=f"{GOOD}-out", storage=storage)
        assert passes(spec)

    def test_who_is_anonymous_may_use_every_place_that_is_written_plainly(self) -> None:
        assert all(passes(spec, anonymous()) for spec in where("s3://any/thing"))
        assert not any(passes(spec, anonymous()) for spec in where("s3://any/../thing"))
        assert not any(passes(spec, anonymous()) for spec in where("zip://x::s3://any/thing"))


class TestLinks:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        (tmp_path / "models" / "a").mkdir(parents=True)
        (tmp_path / "secret" / "a").mkdir(parents=True)
        return tmp_path

    def may(self, tree: Path, text: Path | str, *, as_output: bool = False, held: Path | None = None) -> bool:
        who = principal("s3://allowed", str(held or tree / "models"))
        return passes(raw(output=str(text)) if as_output else raw(base=str(text)), who)

    def test_a_link_within_the_folder(self, tree: Path) -> None:
        (tree / "models" / "link").symlink_to(tree / "models" / "a")
        assert self.may(tree, tree / "models" / "link")

    def test_a_link_out_of_the_folder(self, tree: Path) -> None:
        (tree / "models" / "link").symlink_to(tree / "secret")
        for text in ("link", "link/a", "link/new"):
            assert not self.may(tree, tree / "models" / text)
            assert not self.may(tree, tree / "models" / text, as_output=True)

    def test_a_link_to_what_is_not_there_yet(self, tree: Path) -> None:
        (tree / "models" / "link").symlink_to(tree / "secret" / "later")
        assert not self.may(tree, tree / "models" / "link", as_output=True)

    def test_a_link_into_the_folder_from_elsewhere_belongs_to_whoever_made_it(self, tree: Path) -> None:
        (tree / "elsewhere").symlink_to(tree / "models")
        assert not self.may(tree, tree / "elsewhere" / "a")

    def test_the_folder_itself_may_be_a_link(self, tree: Path) -> None:
        (tree / "current").symlink_to(tree / "models")
        assert self.may(tree, tree / "current" / "a", held=tree / "current")
        assert self.may(tree, tree / "models" / "a", held=tree / "current")
        assert not self.may(tree, tree / "secret" / "a", held=tree / "current")

    def test_the_private_folder_of_an_output_is_no_way_out(self, tree: Path) -> None:
        (tree / "models" / "a" / ".plait").symlink_to(tree / "secret")
        assert self.may(tree, tree / "models" / "a")
        assert not self.may(tree, tree / "models" / "a", as_output=True)

    def test_what_a_glob_finds_is_no_way_out(self, tree: Path) -> None:
        who = principal("s3://allowed", str(tree / "models"))
        spec = raw(models=(SourceGlob(glob=f"{tree}/models/*"),))
        assert passes(spec, who)
        (tree / "models" / "b").symlink_to(tree / "secret")
        assert not passes(spec, who)
        assert passes(raw(models=(SourceGlob(glob=f"{tree}/models/a*"),)), who)

    def test_a_loop_of_links_is_an_end(self, tree: Path) -> None:
        (tree / "models" / "x").symlink_to(tree / "models" / "y")
        (tree / "models" / "y").symlink_to(tree / "models" / "x")
        assert self.may(tree, tree / "models" / "x")  # it opens nothing, wherever it is opened


class TestPrefixes:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("s3://allowed/team/", "s3://allowed/team"),
            ("s3://allowed", "s3://allowed"),
            ("file:///srv/my%20models/", "/srv/my models"),
            ("/srv/models", "/srv/models"),
            ("/", "/"),
            ("hf://team", "hf://team"),
        ],
    )
    def test_are_canonical(self, text: str, canonical: str) -> None:
        assert str(prefix(text)) == canonical

    @pytest.mark.parametrize(
        "text", ["s3://allowed/*", "s3://allowed/te?m", "s3://allowed/[t]eam", "models", ""]
    )
    def test_are_no_patterns_and_not_relative(self, text: str) -> None:
        with pytest.raises(SpecInvalid, match="a prefix of a token"):
            prefix(text)

    def test_each_once(self) -> None:
        assert prefixes(["s3://a/b", "s3://a/b/", "s3://c"]) == (prefix("s3://a/b"), prefix("s3://c"))


def test_specs_that_are_validated_first_tell_the_same() -> None:
    """No hostile URI passes the way that requests go, either."""
    for text, reason in HOSTILE:
        try:
            spec = MergeSpec(models=[text], method={"name": "average"}, output=f"{GOOD}-out")
        except ValidationError:
            continue
        assert not passes(spec), reason
