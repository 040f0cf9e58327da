"""The service as an app: its parts, made and started together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from plait import __version__
from plait.jobs import JobState
from plait_service.api import problems
from plait_service.api.audit import Audit
from plait_service.api.feeds import Feeds
from plait_service.api.limits import BodyLimit, Rates
from plait_service.api.metrics import Metrics, Timed
from plait_service.api.routes import events, health, jobs, schedules, tokens
from plait_service.api.settings import Settings
from plait_service.api.state import Services
from plait_service.jobs.backends.base import Backend
from plait_service.jobs.backends.local import LocalBackend
from plait_service.jobs.backends.ray_jobs import RayJobsBackend
from plait_service.jobs.database import Database
from plait_service.jobs.records import Jobs
from plait_service.jobs.runner import Runner
from plait_service.jobs.tokens import Tokens
from plait_service.schedules.scheduler import Scheduler

_ABOUT = """
Submit merges of large language models, watch them, and schedule them.

Every answer that is no success is `{"error": {"kind": ..., "message": ..., "retryable": ...}}`; kinds never
change. Send `Authorization: Bearer TOKEN`.
"""


def make_app(settings: Settings, backend: Backend | None = None) -> FastAPI:
    """The service; its database is brought up to date, and jobs are looked after, once it starts.

    Args:
        backend: in place of the one that the settings name.

    Raises:
        SpecInvalid: a setting is wrong.
    """
    services = make_services(settings, backend or _backend(settings))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            stack.callback(services.database.close)
            services.database.upgrade()
            services.runner.start()
            stack.callback(services.runner.stop)
            services.scheduler.start()
            stack.callback(services.scheduler.stop)
            yield
            services.feeds.end()

    app = FastAPI(
        title="Plait",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        root_path=settings.root_path,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(BodyLimit, most=settings.most_body)
    app.add_middleware(Timed, metrics=services.metrics)
    for module in (jobs, events, tokens, schedules, health):
        app.include_router(module.router)
    return app


def make_services(settings: Settings, backend: Backend) -> Services:
    """All parts, none of them started."""
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings.database_url)
    records, metrics = Jobs(database), Metrics()
    feeds = Feeds(records)

    def on_change(job: str, state: JobState) -> None:
        feeds.changed(job)
        if state.is_final:
            metrics.ended.labels(state.value).inc()

    runner = Runner(
        database,
        backend,
        slots=settings.slots,
        options=settings.merge_options,
        keep=None if settings.keep_days is None else timedelta(days=settings.keep_days),
        on_change=on_change,
    )
    return Services(
        settings=settings,
        database=database,
        jobs=records,
        tokens=Tokens(database),
        audit=Audit(database),
        rates=Rates(settings.requests_per_minute),
        feeds=feeds,
        metrics=metrics,
        runner=runner,
        scheduler=Scheduler(database, settings, wake=runner.wake),
    )


def _backend(settings: Settings) -> Backend:
    if settings.ray_address is not None:
        return RayJobsBackend(settings.ray_address)
    return LocalBackend(settings.folder / "attempts")
