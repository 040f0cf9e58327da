"""What a running service consists of, as its routes get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

if TYPE_CHECKING:
    from plait_service.api.audit import Audit
    from plait_service.api.feeds import Feeds
    from plait_service.api.limits import Rates
    from plait_service.api.metrics import Metrics
    from plait_service.api.settings import Settings
    from plait_service.jobs.database import Database
    from plait_service.jobs.records import Jobs
    from plait_service.jobs.runner import Runner
    from plait_service.jobs.tokens import Tokens
    from plait_service.schedules.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of one service; made by :func:`plait_service.api.app.make_app`."""

    settings: Settings
    database: Database
    jobs: Jobs
    tokens: Tokens
    audit: Audit
    rates: Rates
    feeds: Feeds
    metrics: Metrics
    runner: Runner
    scheduler: Scheduler


async def services(request: Request) -> Services:
    """Of the app that answers. (A dependency that is no coroutine costs a turn in the pool of threads.)"""
    return cast("Services", request.app.state.services)


Has = Annotated["Services", Depends(services)]
