"""Plans and inspections for people and for programs."""

from __future__ import annotations

from typing import Any, Final

from plait.sizes import format_size
from plait_service.budget import Budget
from plait_service.inspecting import Inspection
from plait_service.prepare import Prepared
from plait_workers.job import Action, Job

ASSUMED_RATE: Final = 1.5e9
"""Bytes of input a thread merges in a second from memory or fast disks: what estimates assume."""


GET_PRICE: Final = 0.4e-6
"""US dollars for a GET or HEAD of S3 Standard in us-east-1."""
PUT_PRICE: Final = 5e-6
"""US dollars for a PUT, POST or LIST of the same; deleting and aborting cost nothing."""


def estimated_seconds(prepared: Prepared, budget: Budget) -> float:
    """Time from and to storage that is faster than the merge."""
    costs = prepared.plan.costs
    return (costs.bytes_read + costs.bytes_written) / (ASSUMED_RATE * budget.threads)


def request_cost(prepared: Prepared) -> float:
    """US dollars for all requests to S3, at the list price of its standard class, without what bytes cost.

    Beside ranges and parts: a look, a header and a listing for each source, three requests a shard to
    begin, list and complete it, a journal every two seconds, and about thirty more.
    """
    job, costs = prepared.plan.job, prepared.plan.costs
    cost = 0.0
    for source, reads in zip(job.sources, costs.reads_of, strict=True):
        if source.uri.startswith("s3://"):
            cost += (reads + 2 * len(source.files)) * GET_PRICE + 3 * PUT_PRICE
    if prepared.output.uri.startswith("s3://"):
        seconds = costs.bytes_read / ASSUMED_RATE
        cost += (costs.write_requests + 4 * len(job.shards) + seconds / 2 + 30) * PUT_PRICE
    return cost


def plan_as_json(prepared: Prepared, budget: Budget) -> dict[str, Any]:
    """A plan as a JSON object; sizes in bytes."""
    plan = prepared.plan
    job, costs = plan.job, plan.costs
    return {
        "status": "planned",
        "fingerprint": job.fingerprint,
        "method": plan.law,
        "models": [source.uri for source in job.sources[: job.num_models]],
        "base": job.sources[job.num_models].uri if len(job.sources) > job.num_models else None,
        "output": plan.spec.output,
        "parameters": plan.num_parameters,
        "tensors": len(job.tensors),
        "shards": [
            {
                "name": shard.key,
                "size": shard.size,
                "header": len(shard.header),
                "tensors": len(shard.bounds) - 1,
                "part_size": shard.part_size,
                "parts": shard.num_parts,
            }
            for shard in job.shards
        ],
        "bytes_read": costs.bytes_read,
        "bytes_written": costs.bytes_written,
        "read_requests": costs.read_requests,
        "write_requests": costs.write_requests,
        "parts": costs.num_parts,
        "memory": budget.memory,
        "peak_memory": budget.peak,
        "threads": budget.threads,
        "step_bytes": budget.step_bytes,
        "estimated_seconds": round(estimated_seconds(prepared, budget), 1),
        "request_cost": round(request_cost(prepared), 6),
        "notes": list(plan.notes),
    }


def plan_as_text(prepared: Prepared, budget: Budget) -> str:
    """A plan for a terminal."""
    plan = prepared.plan
    job, costs = plan.job, plan.costs
    models = [f"  {index}  {source.uri}" for index, source in enumerate(job.sources[: job.num_models])]
    base = job.sources[job.num_models].uri if len(job.sources) > job.num_models else "none"
    shards = job.shards
    names = shards[0].key if len(shards) == 1 else f"{shards[0].key} .. {shards[-1].key}"
    seconds = estimated_seconds(prepared, budget)
    lines = [
        f"merge     {plan.law}, seed {job.seed}",
        f"models    {job.num_models}, in this order",
        *models,
        f"base      {base}",
        f"output    {plan.spec.output}",
        f"result    {plan.num_parameters:,} parameters in {len(job.tensors):,} tensors, {_dtypes(job)}",
        f"shards    {len(shards)}: {names}, {format_size(costs.bytes_written)}",
        f"read      {format_size(costs.bytes_read)} in {costs.read_requests:,} ranges",
        f"write     {format_size(costs.bytes_written)} in {costs.num_parts:,} parts",
        f"memory    at most {format_size(budget.peak)} of {format_size(budget.memory)} for buffers, "
        f"{budget.threads} thread(s), steps of {format_size(budget.step_bytes)}",
        f"estimate  {max(1, round(seconds))} s if the storage keeps up; {_price(prepared)}",
        *(f"note      {note}" for note in plan.notes),
        f"no problems; fingerprint {job.fingerprint[:12]}",
    ]
    return "\n".join(lines)


def _price(prepared: Prepared) -> str:
    cost = request_cost(prepared)
    if not prepared.is_remote:
        return "requests cost nothing on local disks"
    return (
        f"requests cost about ${cost:.4f} at S3's list price" if cost else "what requests cost is not known"
    )


def _dtypes(job: Job) -> str:
    counts: dict[str, int] = {}
    copied = 0
    for tensor in job.tensors:
        counts[tensor.dtype.name] = counts.get(tensor.dtype.name, 0) + 1
        copied += tensor.action is not Action.MERGE
    text = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{text}; {copied} copied, not merged" if copied else text


def inspection_as_json(model: Inspection) -> dict[str, Any]:
    """A model as a JSON object; sizes in bytes."""
    return {
        "uri": model.uri,
        "files": model.files,
        "tensors": sum(group.tensors for group in model.groups),
        "parameters": sum(group.elements for group in model.groups),
        "bytes": sum(group.nbytes for group in model.groups),
        "groups": [
            {
                "name": group.name,
                "dtypes": sorted(group.dtypes),
                "tensors": group.tensors,
                "parameters": group.elements,
                "bytes": group.nbytes,
                **({"compared": group.compared, "changed": group.changed} if group.compared else {}),
            }
            for group in model.groups
        ],
        "notes": model.notes,
    }


def inspection_as_text(model: Inspection, with_base: bool) -> str:
    """A model for a terminal."""
    rows = [("tensors", "count", "dtype", "parameters", "size", "changed" if with_base else "")]
    for group in model.groups:
        share = f"{group.changed / group.compared:.2%}" if group.compared else ""
        rows.append(
            (
                group.name,
                f"{group.tensors:,}",
                " ".join(sorted(group.dtypes)),
                f"{group.elements:,}",
                format_size(group.nbytes),
                share,
            )
        )
    total = sum(group.nbytes for group in model.groups)
    compared, changed = (
        sum(getattr(group, name) for group in model.groups) for name in ("compared", "changed")
    )
    rows.append(
        (
            "all",
            f"{sum(group.tensors for group in model.groups):,}",
            "",
            f"{sum(group.elements for group in model.groups):,}",
            format_size(total),
            f"{changed / compared:.2%}" if compared else "",
        )
    )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"{model.uri}: {model.files} file(s)"]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *(f"note: {note}" for note in model.notes)])
