"""What the service counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from fastapi import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.jobs import JobState

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._jobs = Gauge("plait_jobs", "Jobs that are not over", ["state"], registry=self._registry)
        self._watchers = Gauge("plait_watchers", "Open streams of events", registry=self._registry)
        self.ended = Counter("plait_jobs_ended", "Jobs that ended", ["state"], registry=self._registry)
        self.seconds = Histogram(
            "plait_request_seconds",
            "From a request to the first byte of its answer",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def answer(self, counts: Mapping[JobState, int], watchers: int) -> Response:
        """All of it."""
        for state, count in counts.items():
            self._jobs.labels(state.value).set(count)
        self._watchers.set(watchers)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class Timed:
    """Middleware that times requests by route, so that ids make no labels."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                labels = (scope["method"], route, str(message["status"]))
                self._metrics.seconds.labels(*labels).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, timed)
