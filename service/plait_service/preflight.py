"""What can be known to be wrong with an output before work starts."""

from __future__ import annotations

from plait.errors import NoSpace, PlaitError
from plait.sizes import format_size
from plait_service.claim import PRIVATE, published_fingerprint, refuse_existing
from plait_service.plan import Plan
from plait_service.small_files import output_keys
from plait_workers.storage.base import ObjectStore


def output_problems(plan: Plan, output: ObjectStore, *, overwrite: bool) -> list[PlaitError]:
    """Everything that would stop a merge into this output: permission, space, what lies there.

    A finished result of the same fingerprint is no problem; nothing is written by this.
    """
    problems: list[PlaitError] = []
    published: str | None = None
    try:
        output.check_writable()
        published = published_fingerprint(output)
        if not overwrite and published != plan.job.fingerprint:
            refuse_existing(output, plan.job.fingerprint, output_keys(plan), published)
    except PlaitError as error:
        problems.append(error)
    # A run that is carried on, or done, has its space already.
    begun = published == plan.job.fingerprint or any(True for _ in output.list(f"{PRIVATE}claim-"))
    free, needed = output.free_bytes(), plan.costs.bytes_written
    if not begun and free is not None and free < needed:
        problems.append(
            NoSpace(
                "the result does not fit",
                where=output.uri,
                expected=f"{format_size(needed)} free",
                found=format_size(free),
            )
        )
    return problems
