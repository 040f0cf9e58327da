"""``plait merge``."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import click

from plait.cli.options import (
    cluster_options,
    debug_option,
    json_option,
    prepare_with_budget,
    read_spec,
    spec_options,
)
from plait.cli.run import leave_soon

if TYPE_CHECKING:
    from plait.spec_resources import ResourcesSpec
    from plait_service.driver import Outcome
    from plait_service.events import Events
    from plait_service.executor import Executor
    from plait_service.plan import Plan
    from plait_service.prepare import Prepared

_LAST_MOMENT = 1.8
_LAST_MOMENT_OF_A_CLUSTER = 6.0
"""Seconds from a first signal to the end, whatever is waited for."""


@click.command()
@spec_options
@cluster_options
@click.option("--log-json", is_flag=True, help="Events and progress as lines of JSON on standard error.")
@json_option
@debug_option
def merge(
    spec: str,
    overrides: tuple[str, ...],
    memory: int | None,
    workers: int | None,
    overwrite: bool,
    address: str | None,
    cpus: int | None,
    labels: dict[str, str],
    log_json: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Merge the models that SPEC names: a YAML file, - for standard input, s3://..., or {inline YAML}.

    Plans first, and stops there if anything is wrong. A run that was stopped or killed is carried on
    by the same command, also with another --memory, or on a cluster; nothing that looks like a model
    appears before all of it is there.
    """
    from plait.cli.progress import progress_shown
    from plait_service.cluster.connect import check_address, default_address
    from plait_service.driver import Driver
    from plait_service.events import Events
    from plait_workers.open_files import allow_many

    allow_many()
    address = default_address() if address is None else check_address(address)
    if address is None and (cpus is not None or labels):
        raise click.UsageError("--worker-cpus and --label need a cluster: name it with --address")
    parsed = read_spec(spec, overrides)
    prepared, budget = prepare_with_budget(parsed, memory, workers, on_cluster=address is not None)
    plan = prepared.plan
    if not as_json:
        for note in plan.notes:
            click.echo(f"note: {note}", err=True)
    stop = threading.Event()
    events = Events(plan.job.fingerprint)
    wanted = parsed.resources.model_copy(
        update={
            key: value
            for key, value in (("workers", workers), ("cpus", cpus), ("memory", memory), ("labels", labels))
            if value
        }
    )
    with (
        progress_shown(
            plan.costs.bytes_written, events if address or log_json else None, always_lines=log_json
        ) as on_progress,
        _executor(address, prepared, wanted, events) as executor,
        _signals(stop, as_json, _LAST_MOMENT if address is None else _LAST_MOMENT_OF_A_CLUSTER),
    ):
        driver = Driver(
            prepared,
            budget,
            executor=executor,
            events=events,
            overwrite=overwrite,
            on_progress=on_progress,
            stop=stop,
        )
        outcome = driver.run()
    click.echo(json.dumps(_as_json(plan, outcome)) if as_json else _as_text(plan, outcome))


@contextmanager
def _executor(
    address: str | None, prepared: Prepared, wanted: ResourcesSpec, events: Events
) -> Iterator[Executor | None]:
    """Workers of a cluster; None for threads of this process."""
    if address is None:
        yield None
        return
    from plait_service.cluster.resources import Resources
    from plait_service.cluster.running import cluster_executor

    resources = Resources(**dict(wanted))
    # Ray prints what it has to say; standard output is for the outcome alone.
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        cluster_executor(address, prepared, resources, events) as executor,
    ):
        yield executor


class _signals:
    """SIGINT and SIGTERM stop the merge within a step; a second one interrupts at once.

    If something still waits for a store that does not answer, the process leaves it behind: finished
    parts are on record, and a claim that nobody renews expires.
    """

    def __init__(self, stop: threading.Event, as_json: bool, seconds: float) -> None:
        self._stop = stop
        self._before: dict[int, object] = {}
        self._last_moment = leave_soon(as_json, seconds)

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()
        self._last_moment.start()

    def __exit__(self, *_error: object) -> None:
        self._last_moment.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _as_json(plan: Plan, outcome: Outcome) -> dict[str, object]:
    return {
        "status": "done",
        "output": plan.spec.output,
        "fingerprint": outcome.fingerprint,
        "already_done": outcome.already_done,
        "by_another": outcome.by_another,
        "parts_merged": outcome.merged_parts,
        "parts_resumed": outcome.resumed_parts,
        "bytes_read": plan.costs.bytes_read,
        "bytes_written": plan.costs.bytes_written,
        "seconds": round(outcome.seconds, 3),
    }


def _as_text(plan: Plan, outcome: Outcome) -> str:
    return "\n".join(_lines(plan, outcome))


def _lines(plan: Plan, outcome: Outcome) -> Iterator[str]:
    from plait.sizes import format_size

    if outcome.already_done:
        yield f"already there: {plan.spec.output} is the result of this spec and these sources"
        yield "nothing was written; --overwrite makes it again"
        return
    size = format_size(plan.costs.bytes_written)
    yield f"merged {plan.job.num_models} sub-models into {plan.spec.output}: {size}, {outcome.seconds:.1f} s"
    if outcome.by_another:
        yield "another run of the same merge published it first"
    if outcome.resumed_parts:
        yield f"carried on: {outcome.resumed_parts} parts were finished before, {outcome.merged_parts} now"
    yield f"{plan.law}; fingerprint {outcome.fingerprint[:12]}"
