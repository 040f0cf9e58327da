"""What Ray costs on one machine: the units of a merge on one worker of a private cluster, or here."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from checkpoints import make_models, model_names
from cluster_merge import Timed
from common import Figure, alternate, times
from null_server import NullServer
from s3 import HALF, MODELS
from s3_places import clear, plan, spec_of, use, warm_up

from plait_service.cluster.connect import LOCAL, joined
from plait_service.cluster.resources import Resources
from plait_service.driver import Driver
from plait_service.executor import Executor, ThreadExecutor

MOST = 1.1


def overhead(options: argparse.Namespace) -> list[Figure]:
    """Both in turns, from and to a null server; Ray and its worker are up before the clock starts."""
    if not (options.data / "base").exists():
        make_models(options.data, HALF, MODELS)
    warm_up(options.data.parent, MODELS)
    text = spec_of(model_names(MODELS))
    with NullServer(options.data) as server:
        use(server)
        with joined(LOCAL):
            runs = {"in this process": _in_process(text), "one Ray worker": _on_ray(text)}
            seconds = alternate(options.rounds, runs, lambda: clear(server))
    each = [
        ray / here for ray, here in zip(seconds["one Ray worker"], seconds["in this process"], strict=True)
    ]
    ratio = statistics.median(each)
    return [
        *(times(name, values) for name, values in seconds.items()),
        Figure(
            what="one Ray worker / in this process, median of the rounds' ratios",
            value=f"{ratio:.3f} x",
            limit=f"at most {MOST} x",
            met=ratio <= MOST,
            details={"by round": each},
        ),
    ]


def _in_process(text: str) -> Callable[[], float]:
    def run() -> float:
        prepared, budget = plan(text)
        return _units(text, ThreadExecutor(prepared, budget))

    return run


def _on_ray(text: str) -> Callable[[], float]:
    from plait_service.cluster.executor import RayExecutor

    def run() -> float:
        prepared, _ = plan(text)
        executor = RayExecutor(prepared, Resources(workers=1))
        try:
            return _units(text, executor)
        finally:
            executor.close()

    return run


def _units(text: str, inner: Executor) -> float:
    """A whole merge; how long its units took, the first few apart, which see that everything is there."""
    clock: dict[str, float] = {}

    def tell(said: Mapping[str, Any]) -> None:
        clock[said["kind"]] = time.perf_counter()

    prepared, budget = plan(text)
    Driver(prepared, budget, executor=Timed(inner, tell=tell)).run()
    return clock["end"] - clock["clock"]
