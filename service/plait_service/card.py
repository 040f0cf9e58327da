"""The model card, README.md of a result."""

from __future__ import annotations

from plait import __version__
from plait_service.finished_parts import FinishedParts
from plait_service.plan import Plan


def build_card(plan: Plan, finished: FinishedParts) -> bytes:
    """A model card that says what the result is made of; the same bytes for the same job."""
    job, spec = plan.job, plan.spec
    lines = ["---", "library_name: transformers", "tags:", "- merge", "- plait", "---", ""]
    lines += ["# Merged model", ""]
    lines += [
        f"Made by Plait {__version__}: {plan.law}, seed {spec.seed}.",
        "",
    ]
    lines += [f"{plan.num_parameters:,} parameters in {len(job.tensors)} tensors."]
    lines += ["", "| source | weight | share of elements |", "| --- | --- | --- |"]
    shares = _shares(plan, finished)
    for index, source in enumerate(job.sources):
        weight = "base" if index == job.num_models else f"{job.weights[index]:g}"
        lines.append(f"| `{source.uri}` | {weight} | {shares[index]} |")
    lines += ["", "The spec:", "", "```yaml", spec.to_yaml(places=False).rstrip(), "```", ""]
    lines += [
        f"Fingerprint `{job.fingerprint}`. Sources, checksums and statistics by tensor: `plait.json`.",
        "",
    ]
    return "\n".join(lines).encode()


def _shares(plan: Plan, finished: FinishedParts) -> list[str]:
    job = plan.job
    counters = finished.counters().values()
    total = [sum(column) for column in zip(*counters, strict=True)] if counters else []
    taken = total[: job.num_models + 1]
    if not sum(taken):
        return ["" for _ in job.sources]
    return [f"{count / sum(taken):.2%}" for count in taken][: len(job.sources)]
