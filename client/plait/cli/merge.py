"""``plait merge``."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING

import click

from plait.cli.options import debug_option, json_option, prepare_with_budget, read_spec, spec_options
from plait.cli.run import leave_soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plait_service.driver import Outcome
    from plait_service.plan import Plan


@click.command()
@spec_options
@json_option
@debug_option
def merge(
    spec: str,
    overrides: tuple[str, ...],
    memory: int | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Merge the models that SPEC names (a YAML file, or - for standard input).

    Plans first, and stops there if anything is wrong. A run that was stopped or killed is carried on
    by the same command, also with another --memory; nothing that looks like a model appears before
    all of it is there.
    """
    from plait.cli.progress import progress_shown
    from plait_service.driver import Driver

    prepared, budget = prepare_with_budget(read_spec(spec, overrides), memory, workers)
    plan = prepared.plan
    if not as_json:
        for note in plan.notes:
            click.echo(f"note: {note}", err=True)
    stop = threading.Event()
    with progress_shown(plan.costs.bytes_written) as on_progress, _signals(stop, as_json):
        outcome = Driver(prepared, budget, overwrite=overwrite, on_progress=on_progress, stop=stop).run()
    click.echo(json.dumps(_as_json(plan, outcome)) if as_json else _as_text(plan, outcome))


class _signals:
    """SIGINT and SIGTERM stop the merge within a step; a second one interrupts at once.

    If something still waits for a store that does not answer, the process leaves it behind: finished
    parts are on record, and a claim that nobody renews expires.
    """

    def __init__(self, stop: threading.Event, as_json: bool) -> None:
        self._stop = stop
        self._before: dict[int, object] = {}
        self._last_moment = leave_soon(as_json)

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
