"""What can be known to be wrong with an output before work starts."""

from __future__ import annotations

from plait.errors import NoSpace, PlaitError, SpecInvalid
from plait.sizes import format_size
from plait_service.existing import PRIVATE, is_done, published_fingerprint
from plait_service.plan import Plan
from plait_service.small_files import output_keys
from plait_workers.storage.base import ObjectStore


def output_problems(plan: Plan, output: ObjectStore, *, overwrite: bool) -> list[PlaitError]:
    """Everything that would stop a merge into this output: permission, space, what lies there.

    A finished result of the same fingerprint is no problem; nothing is written by this.
    """
    problems: list[PlaitError] = _part_problems(plan, output)
    done = False
    try:
        output.check_writable()
        if overwrite:
            done = published_fingerprint(output) == plan.job.fingerprint
        else:
            done = is_done(output, plan.job.fingerprint, output_keys(plan))
    except PlaitError as error:
        problems.append(error)
    # A run that is carried on, or done, has its space already.
    begun = done or any(True for _ in output.list(f"{PRIVATE}claim-"))
    free, needed = output.free_bytes(), plan.costs.bytes_written
    if free is not None and overwrite:  # the old result goes first
        free += sum(info.size for info in output.list(deep=False) if info.key.endswith(".safetensors"))
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


def _part_problems(plan: Plan, output: ObjectStore) -> list[PlaitError]:
    """Parts that the store would not take."""
    limits = output.part_limits
    if limits is None:
        return []
    for shard in plan.job.shards:
        size = shard.part_size if shard.num_parts > 1 else limits.smallest
        if not limits.smallest <= size <= limits.largest or shard.num_parts > limits.most:
            return [
                SpecInvalid(
                    "part_size: the output's store does not take such parts",
                    where=output.uri,
                    expected=f"{format_size(limits.smallest)} to {format_size(limits.largest)} each, "
                    f"at most {limits.most} a file",
                    found=f"{shard.num_parts} parts of {format_size(size)} in {shard.key}",
                )
            ]
    return []
