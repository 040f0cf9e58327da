"""Who gets in: tokens and roles; and, without a token, programs of this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plait.errors import SpecInvalid
from plait_service.api.principal import Principal, anonymous
from plait_service.api.settings import Settings
from plait_service.jobs.database import Database
from tests.service.access.house import House, kind_of


@pytest.fixture
def open_house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path, anonymous=True)


class TestTokens:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer plait_wrong"},
            {"Authorization": "Bearer plait_" + "A" * 43},
            {"Authorization": "Basic cGxhaXQ6cGxhaXQ="},
            {"X-Token": "SECRET"},
            {"Authorization": "SECRET"},
            {"Authorization": "Basic SECRET"},
            {"Authorization": "Bearer SECRET x"},
            {"Authorization": "Bearer  xSECRET"},
            {"Cookie": "Authorization=Bearer SECRET"},
        ],
    )
    def test_without_a_good_one_nobody_gets_in(self, house: House, headers: dict[str, str]) -> None:
        made = house.token("ci", "admin")
        sent = {name: value.replace("SECRET", made.secret) for name, value in headers.items()}
        response = house.client(**sent).get("/read")
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert kind_of(response) == "unauthenticated"
        assert made.secret not in response.text

    def test_a_token_in_the_url_is_none(self, house: House) -> None:
        made = house.token("ci")
        for name in ("token", "access_token", "authorization"):
            assert house.client().get("/read", params={name: made.secret}).status_code == 401

    def test_with_a_good_one(self, house: House) -> None:
        made = house.token("ci")
        assert house.client(made).get("/read").json() == "ci"
        assert house.client(Authorization=f"bearer {made.secret}").get("/read").json() == "ci"

    def test_a_revoked_one_ends_at_once(self, house: House) -> None:
        made = house.token("ci")
        client = house.client(made)
        assert client.get("/read").status_code == 200
        house.tokens.revoke(made.id)
        assert client.get("/read").status_code == 401

    def test_the_wrong_token_is_told_before_the_wrong_body(self, house: House) -> None:
        response = house.client().post("/submit", json={"unknown": 1})
        assert response.status_code == 401
        assert (
            house.client(house.token("ci", "submit")).post("/submit", json={"unknown": 1}).status_code == 422
        )

    @pytest.mark.parametrize(
        ("role", "statuses"),
        [("read", (200, 403, 403)), ("submit", (200, 200, 403)), ("admin", (200, 200, 200))],
    )
    def test_a_role_includes_those_below(self, house: House, role: str, statuses: tuple[int, ...]) -> None:
        client = house.client(house.token("ci", role))
        answers = [client.get("/read"), client.post("/submit", json={"text": "x"}), client.get("/admin")]
        assert tuple(answer.status_code for answer in answers) == statuses
        assert house.done == (["ci"] if statuses[1] == 200 else [])
        assert [kind_of(answer) for answer in answers if answer.status_code == 403] == [
            "forbidden"
        ] * statuses.count(403)

    def test_a_missing_role_is_in_the_audit_log(self, house: House) -> None:
        assert house.client(house.token("ci")).get("/admin").status_code == 403
        (entry,) = house.audit.list().entries
        assert (entry.who, entry.action, entry.target, entry.outcome) == (
            "ci",
            "access",
            "GET /admin",
            "forbidden",
        )
        assert entry.address == "testclient"


class TestAnonymous:
    def test_it_is_off_unless_it_is_asked_for(self, house: House) -> None:
        assert house.client().get("/admin").status_code == 401

    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "::", "192.0.2.1", "plait.example.org", "127.0.0.1.example.org"]
    )
    def test_it_needs_a_loopback_address(self, tmp_path: Path, host: str) -> None:
        with pytest.raises(SpecInvalid, match="without a token is for this machine alone"):
            Settings(folder=tmp_path, anonymous=True, host=host)

    @pytest.mark.parametrize(
        "host",
        ["localhost", "127.0.0.1", "[::1]", "localhost:8421", "127.0.0.1:1", "[::1]:8421", "LOCALHOST:80"],
    )
    def test_this_machine_gets_in(self, open_house: House, host: str) -> None:
        response = open_house.client(Host=host).get("/admin")
        assert response.status_code == 200
        assert response.json() == "anonymous"

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example.org",
            "evil.example.org:8421",
            "localhost.evil.example.org",
            "127.0.0.1.evil.example.org",
            "localhost@evil.example.org",
            "evil.example.org#localhost",
            "192.0.2.1",
            "0.0.0.0",
            "[::]",
            "localhost:8421:80",
            "localhost:port",
            "[::1",
            "",
        ],
    )
    def test_a_name_that_was_made_to_lead_here_does_not(self, open_house: House, host: str) -> None:
        response = open_house.client(Host=host).get("/read")
        assert response.status_code == 401
        assert kind_of(response) == "unauthenticated"

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example.org"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:3000"},
            {"Origin": "https://127.0.0.1:8421"},
            {"Origin": "http://127.0.0.1:8421.evil.example.org"},
            {"Origin": "http://localhost:8421"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_a_page_of_another_origin_does_not(self, open_house: House, headers: dict[str, str]) -> None:
        response = open_house.client(**headers).post("/submit", json={"text": "x"})
        assert response.status_code == 403
        assert kind_of(response) == "forbidden"
        assert open_house.done == []

    @pytest.mark.parametrize(
        "headers",
        [{"Origin": "http://127.0.0.1:8421"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}],
    )
    def test_its_own_pages_and_a_persons_own_requests_do(
        self, open_house: House, headers: dict[str, str]
    ) -> None:
        assert open_house.client(**headers).post("/submit", json={"text": "x"}).status_code == 200

    @pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host"])
    def test_what_a_proxy_forwards_does_not(self, open_house: House, name: str) -> None:
        assert open_house.client(**{name: "192.0.2.1"}).get("/read").status_code == 401

    def test_a_bad_token_is_told_also_where_none_is_needed(self, open_house: House) -> None:
        assert open_house.client("plait_wrong").get("/read").status_code == 401
        assert open_house.client(Authorization="Basic eDp4").get("/read").status_code == 401

    def test_a_good_token_works_as_elsewhere(self, open_house: House) -> None:
        made = open_house.token("ci")
        assert open_house.client(made).get("/read").json() == "ci"
        assert open_house.client(made).get("/admin").status_code == 403
        foreign = open_house.client(made, Host="plait.example.org", Origin="https://example.org")
        assert foreign.get("/read").json() == "ci"


class TestPrincipals:
    def test_an_admin_sees_all_teams(self) -> None:
        who: dict[str, Any] = {"name": "x", "team": "x"}
        assert Principal(**who, roles=frozenset({"admin"})).sees is None
        assert Principal(**who, roles=frozenset({"submit"})).sees == "x"
        assert anonymous().sees is None

    def test_nobody_has_a_role_that_was_not_given(self) -> None:
        nobody = Principal(name="x", team="x", roles=frozenset())
        assert not any(nobody.has(role) for role in ("read", "submit", "admin"))
