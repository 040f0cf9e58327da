"""The audit log, and the routes of tokens: who did what, page by page, and no secret in it."""

from __future__ import annotations

import pytest

from plait.errors import SpecInvalid
from plait_service.api.audit import Audit
from plait_service.api.principal import Principal
from plait_service.jobs.database import Database
from tests.service.access.house import House, kind_of

CI = Principal(name="ci", team="nlp", roles=frozenset({"submit"}))


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database)


class TestTheLog:
    def test_it_says_who_did_what_where_from_and_how_it_ended(self, audit: Audit) -> None:
        audit.tell(CI, "job.submit", "j-1", "ok", "192.0.2.1")
        (entry,) = audit.list().entries
        said = (entry.who, entry.team, entry.action, entry.target, entry.outcome, entry.address)
        assert said == ("ci", "nlp", "job.submit", "j-1", "ok", "192.0.2.1")
        assert entry.time.tzinfo is not None

    def test_pages_are_newest_first_and_miss_nothing(self, audit: Audit) -> None:
        for number in range(7):
            audit.tell(CI, "job.submit", f"j-{number}", "ok", None)
        found, cursor, pages = [], None, 0
        while True:
            page = audit.list(cursor, limit=3)
            found += [entry.target for entry in page.entries]
            pages, cursor = pages + 1, page.next
            if cursor is None:
                break
            audit.tell(CI, "job.submit", "later", "ok", None)  # what comes meanwhile moves nothing
        assert found == [f"j-{number}" for number in reversed(range(7))]
        assert pages == 3

    def test_a_full_last_page_is_the_last(self, audit: Audit) -> None:
        for number in range(3):
            audit.tell(CI, "job.submit", f"j-{number}", "ok", None)
        assert audit.list(limit=3).next is None
        assert audit.list(limit=2).next is not None

    @pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "9" * 30, "\u0661"])
    def test_a_cursor_of_no_page(self, audit: Audit, cursor: str) -> None:
        with pytest.raises(SpecInvalid, match="the cursor"):
            audit.list(cursor)

    def test_what_strangers_wrote_is_one_short_line_without_passwords(self, audit: Audit) -> None:
        audit.tell(CI, "job.submit", "s3://AKIA:hunter2@bucket/x", "forbidden", None)
        audit.tell(CI, "job.submit", "a\x00b\x1b[31m\u202ec\nd", "x" * 100, "y" * 100)
        audit.tell(CI, "job.submit", "z" * 5000, "ok", None)
        long, odd, secret = audit.list().entries
        assert "hunter2" not in secret.target
        assert odd.target.isprintable()
        assert (len(long.target), len(odd.outcome), len(odd.address or "")) == (1000, 64, 64)


class TestRoutes:
    def test_a_token_from_its_creation_to_its_end(self, house: House) -> None:
        boss = house.client(house.token("boss", "admin"))
        asked = {"name": "ci", "team": "nlp", "roles": ["submit"], "read": ["s3://runs/"], "days": 1}
        response = boss.post("/v1/tokens", json=asked)
        assert response.status_code == 201
        made = response.json()
        assert made["read"] == ["s3://runs"]
        client = house.client(made["secret"])
        assert client.get("/v1/me").json() == {
            "name": "ci",
            "team": "nlp",
            "roles": ["submit"],
            "read": ["s3://runs"],
            "write": [],
        }
        listed = boss.get("/v1/tokens")
        assert [token["name"] for token in listed.json()["tokens"]] == ["ci", "boss"]
        assert made["secret"] not in listed.text

        for _ in range(2):
            revoked = boss.delete(f"/v1/tokens/{made['id']}")
            assert revoked.status_code == 200
            assert revoked.json()["revoked"] is not None
        assert client.get("/v1/me").status_code == 401

    def test_only_an_admin_has_to_do_with_tokens(self, house: House) -> None:
        client = house.client(house.token("ci", "submit"))
        answers = [
            client.post("/v1/tokens", json={"name": "x", "roles": ["admin"]}),
            client.get("/v1/tokens"),
            client.delete(f"/v1/tokens/t-{'0' * 24}"),
            client.get("/v1/audit"),
        ]
        assert [answer.status_code for answer in answers] == [403] * 4
        assert [token.name for token in house.tokens.list()] == ["ci"]

    def test_all_is_in_the_audit_log_and_no_secret(self, house: House) -> None:
        boss = house.client(house.token("boss", "admin"))
        made = boss.post("/v1/tokens", json={"name": "ci"}).json()
        assert kind_of(boss.post("/v1/tokens", json={"name": "ci"})) == "spec-invalid"
        assert house.client(made["secret"]).get("/v1/tokens").status_code == 403
        boss.delete(f"/v1/tokens/{made['id']}")
        assert boss.delete(f"/v1/tokens/t-{'0' * 24}").status_code == 404
        log = boss.get("/v1/audit")
        assert [
            (entry["who"], entry["action"], entry["target"], entry["outcome"])
            for entry in log.json()["entries"]
        ] == [
            ("boss", "token.revoke", f"t-{'0' * 24}", "not-found"),
            ("boss", "token.revoke", f"{made['id']} ci", "ok"),
            ("ci", "access", "GET /v1/tokens", "forbidden"),
            ("boss", "token.create", "ci", "spec-invalid"),
            ("boss", "token.create", f"{made['id']} ci", "ok"),
        ]
        assert made["secret"] not in log.text

    def test_pages_of_the_log(self, house: House) -> None:
        boss = house.client(house.token("boss", "admin"))
        for number in range(3):
            boss.post("/v1/tokens", json={"name": f"ci{number}"})
        first = boss.get("/v1/audit", params={"limit": 2}).json()
        rest = boss.get("/v1/audit", params={"limit": 2, "cursor": first["next"]}).json()
        assert [len(first["entries"]), len(rest["entries"]), rest["next"]] == [2, 1, None]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"name": "x y"},
            {"name": "x" * 64},
            {"name": "x", "roles": []},
            {"name": "x", "roles": ["root"]},
            {"name": "x", "days": 0},
            {"name": "x", "read": ["s3://a/../b"]},
            {"name": "x", "read": ["s3://a"] * 65},
            {"name": "x", "secret": "mine"},
            {"name": "anonymous"},
        ],
    )
    def test_bad_requests(self, house: House, body: dict[str, object]) -> None:
        boss = house.client(house.token("boss", "admin"))
        response = boss.post("/v1/tokens", json=body)
        assert response.status_code == 422
        assert kind_of(response) == "spec-invalid"
        assert [token.name for token in house.tokens.list()] == ["boss"]

    @pytest.mark.parametrize("path", ["/v1/audit?limit=0", "/v1/audit?cursor=x"])
    def test_bad_parameters(self, house: House, path: str) -> None:
        boss = house.client(house.token("boss", "admin"))
        assert boss.get(path).status_code == 422

    def test_what_is_no_id_names_no_token(self, house: House) -> None:
        answer = house.client(house.token("boss", "admin")).delete("/v1/tokens/x")
        assert answer.status_code == 404
        assert kind_of(answer) == "not-found"

    def test_every_route_says_what_it_may_answer(self, house: House) -> None:
        paths = house.app.openapi()["paths"]
        for path in ("/v1/tokens", "/v1/tokens/{token_id}", "/v1/me", "/v1/audit"):
            for operation in paths[path].values():
                assert operation["security"] == [{"token": []}]
                assert {"401", "403", "429", "503"} <= operation["responses"].keys()
