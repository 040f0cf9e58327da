"""Tokens: a secret is told once and kept as a hash; what has expired or was revoked is nobody's."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from plait.errors import NotFound, SpecInvalid
from plait.jobs import NewToken, TokenRequest
from plait_service.api.places import prefix
from plait_service.jobs.database import Database
from plait_service.jobs.records import now
from plait_service.jobs.tables import TokenRow
from plait_service.jobs.tokens import Tokens


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return Tokens(database)


def make(tokens: Tokens, name: str = "ci", **more: object) -> NewToken:
    return tokens.create(TokenRequest.model_validate({"name": name, **more}))


def expire(database: Database, token: NewToken) -> None:
    with database.begin() as session:
        passed = now() - timedelta(microseconds=1)
        session.execute(update(TokenRow).where(TokenRow.id == token.id).values(expires=passed))


class TestSecrets:
    def test_a_secret_finds_whom_it_was_made_for(self, tokens: Tokens) -> None:
        made = make(
            tokens, team="nlp", roles=["submit"], read=["s3://runs/", "s3://runs"], write=["s3://out/x/"]
        )
        found = tokens.find(made.secret)
        assert found is not None
        assert (found.name, found.team, found.roles) == ("ci", "nlp", {"submit"})
        assert found.read == (prefix("s3://runs"),)
        assert found.write == (prefix("s3://out/x"),)
        assert found.sees == "nlp"
        assert not found.anonymous

    def test_a_secret_has_256_random_bits(self, tokens: Tokens) -> None:
        secrets = {make(tokens, f"ci{number}").secret for number in range(20)}
        assert len(secrets) == 20
        assert all(re.fullmatch(r"plait_[A-Za-z0-9_-]{43}", secret) for secret in secrets)

    def test_only_a_hash_of_it_is_kept(self, tokens: Tokens, database: Database, tmp_path: Path) -> None:
        made = make(tokens)
        database.close()  # the log of SQLite goes into the file
        kept = (tmp_path / "plait.db").read_bytes()
        assert made.secret.encode() not in kept
        assert made.secret.removeprefix("plait_").encode() not in kept
        assert hashlib.sha256(made.secret.encode()).hexdigest().encode() in kept

    def test_it_is_in_no_repr_and_no_list(self, tokens: Tokens) -> None:
        made = make(tokens)
        assert made.secret not in repr(made)
        assert made.secret not in repr(tokens.list())
        assert made.secret not in repr(tokens.find(made.secret))

    @pytest.mark.parametrize(
        "secret",
        [
            "",
            "plait_",
            "plait_" + "A" * 43,
            "plait_" + "A" * 42,
            "plait_" + "A" * 44,
            "plait_" + "\uff21" * 43,
            "plait_" + "A" * 42 + "\n",
            "' OR 1=1 --",
        ],
    )
    def test_what_is_no_secret_finds_nobody(self, tokens: Tokens, secret: str) -> None:
        made = make(tokens)
        assert tokens.find(secret) is None
        assert tokens.find(made.secret + secret[:1] if secret else made.secret[:-1]) is None

    def test_the_hash_is_no_secret(self, tokens: Tokens) -> None:
        made = make(tokens)
        assert tokens.find(hashlib.sha256(made.secret.encode()).hexdigest()) is None
        assert tokens.find(made.id) is None


class TestCreating:
    def test_the_team_is_the_name_unless_it_is_said(self, tokens: Tokens) -> None:
        assert make(tokens, "ci").team == "ci"
        assert make(tokens, "dev", team="nlp").team == "nlp"

    def test_prefixes_are_canonical(self, tokens: Tokens) -> None:
        made = make(tokens, read=["s3://runs/", "file:///srv/my%20models/"], write=["/srv/out/"])
        assert made.read == ["s3://runs", "/srv/my models"]
        assert made.write == ["/srv/out"]
        found = tokens.find(made.secret)
        assert found is not None
        assert [str(uri) for uri in found.read] == made.read

    @pytest.mark.parametrize("text", ["runs", "s3://runs/../x", "s3://runs/*", "x::s3://runs", "S3://runs"])
    @pytest.mark.parametrize("key", ["read", "write"])
    def test_a_bad_prefix_makes_no_token(self, tokens: Tokens, key: str, text: str) -> None:
        with pytest.raises(SpecInvalid, match="a prefix of a token"):
            make(tokens, **{key: [text]})
        assert tokens.list() == []

    def test_a_name_is_given_once_even_after_it_was_revoked(self, tokens: Tokens) -> None:
        first = make(tokens)
        with pytest.raises(SpecInvalid, match="ci: a token has this name"):
            make(tokens)
        tokens.revoke(first.id)
        with pytest.raises(SpecInvalid, match="ci: a token has this name"):
            make(tokens)
        assert [token.id for token in tokens.list()] == [first.id]

    def test_a_name_is_given_once_to_many_that_ask_at_once(self, tokens: Tokens) -> None:
        together = threading.Barrier(8)

        def ask(_number: int) -> bool:
            together.wait()
            try:
                make(tokens)
            except SpecInvalid:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(ask, range(8))) == 1

    def test_nobody_is_called_as_those_without_a_token_are(self, tokens: Tokens) -> None:
        with pytest.raises(SpecInvalid, match="anonymous"):
            make(tokens, "anonymous")

    def test_a_list_has_all_newest_first(self, tokens: Tokens) -> None:
        made = [make(tokens, f"ci{number}", days=number or None) for number in range(3)]
        tokens.revoke(made[1].id)
        listed = tokens.list()
        assert {token.id for token in listed} == {token.id for token in made}
        assert [token.created for token in listed] == sorted(
            (token.created for token in listed), reverse=True
        )
        assert [token.name for token in listed if token.revoked] == ["ci1"]
        assert {token.name: token.expires is not None for token in listed} == {
            "ci0": False,
            "ci1": True,
            "ci2": True,
        }


class TestEnding:
    def test_a_revoked_token_is_nobodys_at_once(self, tokens: Tokens) -> None:
        made, other = make(tokens), make(tokens, "dev")
        assert tokens.find(made.secret) is not None  # and is remembered
        revoked = tokens.revoke(made.id)
        assert revoked.revoked is not None
        assert tokens.find(made.secret) is None
        assert tokens.find(other.secret) is not None

    def test_revoking_again_changes_nothing(self, tokens: Tokens) -> None:
        made = make(tokens)
        assert tokens.revoke(made.id) == tokens.revoke(made.id)

    @pytest.mark.parametrize("number", ["", "ci", "t-" + "0" * 24, "t-\x00", "j-" + "0" * 24])
    def test_what_is_not_there_is_not_revoked(self, tokens: Tokens, number: str) -> None:
        with pytest.raises(NotFound, match="no such token"):
            tokens.revoke(number)

    def test_another_process_notices_after_a_while(self, database: Database) -> None:
        here, there = Tokens(database), Tokens(database, remember=0)
        made = make(there)
        assert here.find(made.secret) is not None
        assert there.find(made.secret) is not None
        here.revoke(made.id)
        assert here.find(made.secret) is None
        assert there.find(made.secret) is None  # which remembers for no time at all

    def test_a_token_that_was_looked_up_while_it_was_revoked_is_not_remembered(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokens = Tokens(database, remember=3600)
        made = make(tokens)
        look_up = tokens._look_up

        def slow(hashed: str) -> object:
            found = look_up(hashed)
            tokens.revoke(made.id)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(tokens, "_look_up", slow)
            tokens.find(made.secret)
        assert tokens.find(made.secret) is None

    def test_an_expired_token_is_nobodys(self, tokens: Tokens, database: Database) -> None:
        made = make(tokens, days=1)
        expire(database, made)
        assert tokens.find(made.secret) is None

    def test_a_remembered_token_expires_all_the_same(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokens = Tokens(database, remember=10**9)
        made = make(tokens, days=1)
        assert tokens.find(made.secret) is not None
        later = now() + timedelta(days=1)
        monkeypatch.setattr("plait_service.jobs.tokens.now", lambda: later)
        assert tokens.find(made.secret) is None

    def test_a_remembered_token_costs_no_query(self, database: Database) -> None:
        tokens = Tokens(database, remember=3600)
        made = make(tokens)
        assert tokens.find(made.secret) is not None
        with database.begin() as session:
            session.execute(update(TokenRow).values(name="renamed"))
        found = tokens.find(made.secret)
        assert found is not None
        assert found.name == "ci"

    def test_it_remembers_no_more_than_so_many(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("plait_service.jobs.tokens._MOST_REMEMBERED", 2)
        tokens = Tokens(database, remember=3600)
        made = [make(tokens, f"ci{number}") for number in range(4)]
        for token in made:
            assert tokens.find(token.secret) is not None
        assert len(tokens._known) == 2
        assert all(tokens.find(token.secret) is not None for token in made)


def test_the_database_is_a_file_of_sqlite(tokens: Tokens, tmp_path: Path) -> None:
    """What the tests above look for in its bytes would not be found in another one's."""
    make(tokens)
    with sqlite3.connect(tmp_path / "plait.db") as connection:
        assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
