"""Merges on a Ray cluster of hosts with limited cards; very many units; what Ray costs on one machine.

    python benchmarks/cluster.py scaling --save
    python benchmarks/cluster.py failures --save
    python benchmarks/cluster.py overhead --save
    python benchmarks/cluster.py driver --save

`scaling` and `failures` make the hosts: they need root and iproute2, and leave nothing. The others are on a
private cluster of this machine: `overhead` of one worker, `driver` of workers that do nothing.
(Not called ray.py: a script's folder comes first where Python looks for modules, so that
`import ray` would find it.)
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints import fill, make_headers, model_names
from cluster_driver import driver
from cluster_nodes import FRAME, MBIT, PAYLOAD, Cluster, Said, busy
from cluster_overhead import overhead
from common import DATA, Figure, note, parser_of, report
from s3_places import OUT, spec_of

MODELS = 5
NODES = (1, 2, 4, 8)
LINEAR = {4: 0.92, 8: 0.85}
LEAST_OF_CARD = 0.90
MOST_AFTER_KILL = 1.25
NOTICED_WITHIN = 15.0
_SILENCE = ("worker-silent", "node-lost", "worker-lost")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the timed parts of a merge took: seconds, and those that the machine's processors worked."""

    workers: int
    parts: int
    seconds: float
    busy: float

    @property
    def rate(self) -> float:
        """Parts a second."""
        return self.parts / self.seconds


class Bench:
    """The merge that all of them do: parts of one tensor each, of sources that read as zeros."""

    def __init__(self, options: argparse.Namespace, *, filled: bool = False) -> None:
        self.part = options.part << 10
        self.parts = options.parts
        self.output = ""
        self.folder: Path = DATA / f"cluster-{options.part}-{options.parts}{'-filled' if filled else ''}"
        # What is merged before the clock starts comes on top.
        make_headers(self.folder, options.parts + 100, MODELS, 1, (self.part // 2048, 1024))
        if filled:
            fill(self.folder)

    def wanted(self, workers: int, timed: int | None = None) -> dict[str, Any]:
        """For cluster_merge.py: a merge into a place of its own, ``output``."""
        spec = spec_of(model_names(MODELS), shard_size=self.part)
        self.output = f"{OUT}/{uuid.uuid4().hex}"
        spec = spec.replace(f"s3://{OUT}/merged", f"s3://{self.output}")
        return {"spec": spec, "workers": workers, "timed": timed}

    def digests(self, cluster: Cluster) -> list[list[str]]:
        """SHA-256 of each part that the last merge made, file by file, from its manifest."""
        manifest = json.loads(cluster.fetch(f"{self.output}/plait.json"))
        return [shard["sha256"] for shard in manifest["shards"]]

    def of_card(self, timing: Timing, rate: float) -> float:
        """What was read, with the headers of TCP and below, as a share of what one card lets through."""
        wire = timing.parts * self.part * (MODELS + 1) * FRAME / PAYLOAD
        return wire * 8 / timing.seconds / rate

    def timed(self, cluster: Cluster, workers: int, timed: int) -> Timing:
        """Merge, and say how long it took from when all workers were there."""
        spent = {}

        def on_said(said: Said) -> None:
            spent[said["kind"]] = busy()

        said = {line["kind"]: line for line in cluster.merge(self.wanted(workers, timed), on_said)}
        return Timing(
            workers=workers,
            parts=said["clock"]["parts"],
            seconds=said["end"]["time"] - said["clock"]["time"],
            busy=spent["end"] - spent["clock"],
        )


def scaling(options: argparse.Namespace) -> list[Figure]:
    """The same merge on more and more nodes."""
    bench, rate = Bench(options), options.rate * MBIT
    timings: dict[int, Timing] = {}
    with Cluster(bench.folder) as cluster:
        for count in options.nodes:
            cluster.add_nodes(count - len(cluster.nodes), rate)
            timing = timings[count] = bench.timed(cluster, count, options.parts)
            note(
                f"{count} node(s): {timing.parts} parts in {timing.seconds:.1f} s, {timing.rate:.2f} a second"
            )
    figures = []
    first = timings[options.nodes[0]].rate / options.nodes[0]
    for count, timing in timings.items():
        linear = timing.rate / (count * first)
        share = bench.of_card(timing, count * rate)
        shown = f"{timing.seconds:.1f} s, {timing.rate:.2f} parts/s, {linear:.3f} x linear"
        least = LINEAR.get(count)
        figures.append(
            Figure(
                what=f"{count} node(s)",
                value=shown,
                limit=f"at least {least} x" if least else "",
                met=linear >= least if least else None,
                details={"timing": vars(timing), "linear": linear, "of the cards": share},
            )
        )
        held = count == 1
        figures.append(
            Figure(
                what="of what the cards let through; processors busy",
                value=f"{share:.1%}; {timing.busy / timing.seconds:.2f}",
                limit=f"at least {LEAST_OF_CARD:.0%}" if held else "",
                met=share >= LEAST_OF_CARD if held else None,
            )
        )
    return figures


def failures(options: argparse.Namespace) -> list[Figure]:
    """One of three nodes is killed half-way; then one goes silent."""
    bench, rate = Bench(options, filled=True), options.rate * MBIT
    with Cluster(bench.folder) as cluster:
        cluster.add_nodes(3, rate)
        killed, said = _strike(bench, cluster, "node-2", cluster.nodes["node-2"].kill)
        end = next(line for line in said if line["kind"] == "end")
        half = next(line for line in said if line["kind"] == "half")
        seconds = end["time"] - killed
        after_kill = bench.digests(cluster)
        note(f"killed: {half['parts']} parts left, {seconds:.1f} s")
        rest = bench.timed(cluster, 2, half["parts"])
        note(f"two nodes: {rest.parts} parts, {rest.seconds:.1f} s")
        unharmed = bench.digests(cluster)
        lost = _after(said, killed)
        cluster.add_nodes(1, rate)
        cut, said = _strike(bench, cluster, "node-3", cluster.nodes["node-3"].cut)
        noticed = _after(said, cut)
        after_cut = bench.digests(cluster)
        finished = next(line for line in said if line["kind"] == "end")["time"] - cut
    ratio = seconds / rest.seconds * rest.parts / half["parts"]
    return [
        Figure(
            what=f"the other two, from the kill to the end: {half['parts']} parts left",
            value=f"{seconds:.1f} s",
            details={"events after it": lost},
        ),
        Figure(what=f"two nodes, {rest.parts} parts", value=f"{rest.seconds:.1f} s"),
        Figure(
            what="killed half-way / two nodes doing the rest",
            value=f"{ratio:.3f} x",
            limit=f"at most {MOST_AFTER_KILL} x",
            met=ratio <= MOST_AFTER_KILL,
        ),
        Figure(what="the kill noticed after", value=f"{_first(lost):.1f} s"),
        Figure(
            what="a silent node noticed after",
            value=f"{_first(noticed):.1f} s",
            limit=f"under {NOTICED_WITHIN:g} s",
            met=_first(noticed) < NOTICED_WITHIN,
            details={"events after it": noticed},
        ),
        Figure(what="the merge with it finished after", value=f"{finished:.1f} s"),
        Figure(
            what=f"after kill and cut, SHA-256 of all {sum(map(len, unharmed))} parts",
            value="the same" if after_kill == after_cut == unharmed else "DIFFERENT",
            limit="the same",
            met=after_kill == after_cut == unharmed,
        ),
    ]


def _strike(bench: Bench, cluster: Cluster, name: str, strike: Any) -> tuple[float, list[Said]]:
    """A merge on three nodes, and what it said; half-way something is done to one. When, as well."""
    struck: list[float] = []

    def on_said(said: Said) -> None:
        if said["kind"] == "half":
            struck.append(said["time"])
            strike()
            note(f"{name} is struck")

    said = cluster.merge(bench.wanted(3, bench.parts), on_said)
    return struck[0], said


def _after(said: list[Said], moment: float) -> list[Said]:
    """What it said of workers and nodes from then on, with seconds since."""
    return [
        {**line, "time": round(line["time"] - moment, 3)}
        for line in said
        if line["time"] > moment and line["kind"] in (*_SILENCE, "hedged", "retried", "node-joined", "end")
    ]


def _first(events: list[Said]) -> float:
    return next((float(event["time"]) for event in events if event["kind"] in _SILENCE), float("inf"))


def main() -> None:
    """Measure what the options say."""
    runs = {"scaling": scaling, "failures": failures, "overhead": overhead, "driver": driver}
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=tuple(runs))
    parser.add_argument("--rate", type=float, default=30, help="of each card, in Mbit/s, each way")
    parser.add_argument("--part", type=int, default=256, help="KiB of the result that a part makes")
    parser.add_argument("--parts", type=int, default=300, help="how many are timed")
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES)
    parser.add_argument("--rounds", type=int, default=5, help="of overhead")
    parser.add_argument("--units", type=int, default=100_000, help="of driver")
    parser.add_argument("--models", type=int, default=MODELS, help="K of driver")
    parser.add_argument("--workers", type=int, default=4, help="of driver")
    parser.add_argument(
        "--data", type=Path, default=DATA / "half", help="of overhead: folder of the checkpoints"
    )
    options = parser.parse_args()
    options.data = options.data.resolve()
    figures = runs[options.what](options)
    ray = importlib.metadata.version("ray")
    titles = {
        "scaling": f"{options.parts} parts of {options.part} KiB, {options.rate:g} Mbit/s a card",
        "overhead": f"units of select n = 4, K = {MODELS} + base, null server, two processors",
        "driver": f"K = {options.models} + base, {options.workers} workers that do nothing",
    }
    title = titles.get(options.what, titles["scaling"])
    report(f"cluster-{options.what}", f"Ray {ray}: {title}", figures, options)


if __name__ == "__main__":
    main()
