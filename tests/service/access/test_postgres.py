"""Tokens and the audit log on PostgreSQL, which is stricter about text, and about who waits for whom."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from plait.errors import NotFound, SpecInvalid
from plait.jobs import TokenRequest
from plait_service.api.audit import Audit
from plait_service.jobs.database import Database
from plait_service.jobs.tokens import Tokens
from tests.support.postgres import Postgres


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    made = Database(postgres.new_database())
    made.upgrade()
    yield made
    made.close()


def test_a_token_from_its_creation_to_its_end(database: Database) -> None:
    tokens = Tokens(database, remember=0)
    made = tokens.create(TokenRequest(name="ci", roles=["submit"], read=["s3://runs/"], days=1))
    found = tokens.find(made.secret)
    assert found is not None
    assert (found.name, found.team, [str(uri) for uri in found.read]) == ("ci", "ci", ["s3://runs"])
    assert [token.id for token in tokens.list()] == [made.id]
    assert tokens.revoke(made.id) == tokens.revoke(made.id)
    assert tokens.find(made.secret) is None


@pytest.mark.parametrize("number", ["t-\x00", "t-" + "0" * 24, "\ud800"])
def test_no_such_token(database: Database, number: str) -> None:
    with pytest.raises(NotFound):
        Tokens(database).revoke(number)


def test_a_name_is_given_once_to_many_that_ask_at_once(database: Database) -> None:
    tokens, together = Tokens(database), threading.Barrier(8)

    def ask(_number: int) -> bool:
        together.wait()
        try:
            tokens.create(TokenRequest(name="ci"))
        except SpecInvalid:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


def test_the_audit_log(database: Database) -> None:
    tokens, audit = Tokens(database), Audit(database)
    who = tokens.find(tokens.create(TokenRequest(name="ci")).secret)
    assert who is not None
    for target in ("one", "a\x00b\ud800", "three"):
        audit.tell(who, "job.submit", target, "ok", None)
    first = audit.list(limit=2)
    rest = audit.list(first.next, limit=2)
    assert [entry.target for entry in first.entries] == ["three", "a\ufffdb\ufffd"]
    assert ([entry.target for entry in rest.entries], rest.next) == (["one"], None)
    assert audit.list("9" * 18).entries == audit.list().entries
