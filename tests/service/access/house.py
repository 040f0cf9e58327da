"""A small app behind the same doors as the service's: token routes, and one route for each role."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.testclient import TestClient

from plait.jobs import NewToken, TokenRequest
from plait_service.api import problems
from plait_service.api.access import Admin, Reader, Submitter
from plait_service.api.audit import Audit
from plait_service.api.limits import BodyLimit, Rates
from plait_service.api.routes import tokens
from plait_service.api.settings import Settings
from plait_service.jobs.database import Database
from plait_service.jobs.tokens import Tokens

HERE = "http://127.0.0.1:8421"
MOST = 1000


class Body(BaseModel):
    text: str


class House:
    """What routes need, and the app.

    Args:
        rates: requests and bad tokens a minute.
    """

    def __init__(
        self, database: Database, folder: Path, *, rates: Rates | None = None, **settings: Any
    ) -> None:
        self.database = database
        self.tokens = Tokens(database)
        self.audit = Audit(database)
        self.done: list[str] = []
        self.app = FastAPI()
        self.app.state.services = SimpleNamespace(
            settings=Settings(folder=folder, **settings),
            database=database,
            tokens=self.tokens,
            audit=self.audit,
            rates=rates or Rates(6000),
        )
        problems.install(self.app)
        self.app.add_middleware(BodyLimit, most=MOST)
        self.app.include_router(tokens.router)
        self._add_routes()

    def _add_routes(self) -> None:
        @self.app.get("/read")
        def read(who: Reader) -> str:
            return who.name

        @self.app.post("/submit")
        def submit(body: Body, who: Submitter) -> str:
            self.done.append(who.name)
            return body.text

        @self.app.post("/submit-nothing")
        def submit_nothing(who: Submitter) -> str:
            self.done.append(who.name)
            return who.name

        @self.app.get("/admin")
        def admin(who: Admin) -> str:
            return who.name

    def token(self, name: str, *roles: str, **more: Any) -> NewToken:
        return self.tokens.create(TokenRequest(name=name, roles=list(roles or ("read",)), **more))  # type: ignore[arg-type]

    def client(self, token: NewToken | str | None = None, url: str = HERE, **headers: str) -> TestClient:
        if token is not None:
            secret = token if isinstance(token, str) else token.secret
            headers["Authorization"] = f"Bearer {secret}"
        return TestClient(self.app, base_url=url, headers=headers)


def kind_of(response: Any) -> str:
    """Of an answer in the service's form."""
    error = response.json()["error"]
    assert error["message"]
    return str(error["kind"])
