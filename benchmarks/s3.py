"""Merges from and to S3: beside moving the same bytes, against a server that costs nothing, its memory.

    python benchmarks/s3.py weed --save
    python benchmarks/s3.py null --save
    python benchmarks/s3.py memory --save
    python benchmarks/s3.py headers --save

`weed` and `headers` start a SeaweedFS (demo/weed.py); the others a null server (null_server.py), which
sends files from the page cache, counts requests, and forgets what it is sent. All on the loopback.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from checkpoints import Shape, make_headers, make_models, model_names
from common import DATA, PLAIT, Figure, alternate, note, parser_of, report, run, times
from null_http import PARTS, RANGES
from null_server import NullServer
from s3_places import Cost, Merged, Server, bring, clear, merge, move, plan, spec_of, use, warm_up, with_weed
from weed import Weed

from plait_service.budget import default_threads

MODELS = 5
HALF = Shape(layers=17, hidden=1024, intermediate=2816)
MOST_OF_MOVING = 1.15
LEAST_INPUT = 1.2e9
MOST_CPU = 0.9
MOST_REQUESTS = 1.03
MOST_MEMORY = 900e6
BUDGET = "512MB"
WARM_UPS = 3
"""Of SeaweedFS: until its heap has its size, what comes first in a round takes a fifth more of its time."""
MANY, SHARDS, TENSORS = 20, 30, 300
MOST_PLANNING = 3.0


def weed(options: argparse.Namespace) -> list[Figure]:
    """Whole merges in this process beside the same client that moves the same bytes."""
    figures: list[Figure] = []
    names = model_names(MODELS)
    text = spec_of(names)
    merged: list[Merged] = []
    moved: list[Cost] = []

    def once(server: Weed) -> None:
        bring(server, options.data, ["base", *names])
        for run_once in (merge, move) * WARM_UPS:
            clear(server)
            run_once(server, text)
        runs = _runs(server, text, merged, moved)
        seconds = alternate(options.rounds, runs, lambda: clear(server))
        each = [one / other for one, other in zip(seconds["merge"], seconds["moving alone"], strict=True)]
        ratio = statistics.median(each)
        figures.extend(
            [
                times("select n = 4, start not counted", seconds["merge"]),
                times("of it: client made, headers, plan", [one.planning.seconds for one in merged]),
                times("of it: units", [one.units.seconds for one in merged]),
                times("the same bytes moved, no merge", seconds["moving alone"]),
                Figure(
                    what="merge / moving alone, median of the rounds' ratios",
                    value=f"{ratio:.3f} x",
                    limit=f"at most {MOST_OF_MOVING} x",
                    met=ratio <= MOST_OF_MOVING,
                    details={"by round": each},
                ),
            ]
        )

    with_weed(options.out, once)
    return figures


def _runs(
    server: Server, text: str, merged: list[Merged], moved: list[Cost]
) -> dict[str, Callable[[], float]]:
    def one_merge() -> float:
        merged.append(merge(server, text))
        return merged[-1].seconds

    def one_move() -> float:
        moved.append(move(server, text))
        return moved[-1].seconds

    return {"merge": one_merge, "moving alone": one_move}


def null(options: argparse.Namespace) -> list[Figure]:
    """Speed, processor time and requests, against the null server."""
    merged: list[Merged] = []
    moved: list[Cost] = []
    with NullServer(options.data) as server:
        use(server)
        runs = _runs(server, spec_of(model_names(MODELS)), merged, moved)
        seconds = alternate(options.rounds, runs, lambda: clear(server))
    costs = merged[0].prepared.plan.costs
    gigabytes = costs.bytes_read / 1e9
    rates = [costs.bytes_read / one.units.seconds for one in merged]
    rate = statistics.median(rates)
    wholly = statistics.median(one.cpu for one in merged) / gigabytes
    return [
        times("select n = 4, start not counted", seconds["merge"]),
        times("of it: units", [one.units.seconds for one in merged]),
        times("the same bytes moved, no merge", seconds["moving alone"]),
        Figure(
            what="input of the units",
            value=f"{rate / 1e9:.2f} GB/s",
            limit=f"at least {LEAST_INPUT / 1e9} GB/s",
            met=rate >= LEAST_INPUT,
            details={"bytes a second": rates},
        ),
        *_processor("units", [one.units for one in merged], gigabytes, MOST_CPU),
        Figure(what="whole merge: processor time of both", value=f"{wholly:.3f} s/GB of input"),
        *_processor("moving alone", moved, gigabytes),
        *_requests(merged),
    ]


def _processor(what: str, costs: Sequence[Cost], gigabytes: float, most: float | None = None) -> list[Figure]:
    figures = []
    for side, used in (
        ("client", [cost.client / gigabytes for cost in costs]),
        ("server", [cost.server / gigabytes for cost in costs]),
        ("both", [cost.cpu / gigabytes for cost in costs]),
    ):
        value = statistics.median(used)
        held = most is not None and side == "both"
        figures.append(
            Figure(
                what=f"{what}: processor time, {side}",
                value=f"{value:.3f} s/GB of input",
                limit=f"at most {most} s/GB" if held else "",
                met=value <= (most or 0) if held else None,
                details={"seconds a GB": used},
            )
        )
    return figures


def _requests(merged: Sequence[Merged]) -> list[Figure]:
    """What the server counted during the units, beside the plan's; then all else."""
    costs = merged[0].prepared.plan.costs
    planned = costs.read_requests + costs.write_requests
    made = max(one.units.requests[RANGES] + one.units.requests[PARTS] for one in merged)
    last = merged[-1]
    rest = last.planning.requests + last.rest.requests
    shown = ", ".join(f"{count} {name}" for name, count in sorted(rest.items()) if "bytes" not in name)
    control = last.units.requests.copy()
    for name in (RANGES, PARTS, "bytes sent", "bytes received"):
        control.pop(name, None)
    return [
        Figure(
            what=f"requests of the units / planned ({planned})",
            value=f"{made / planned:.3f} x",
            limit=f"at most {MOST_REQUESTS} x",
            met=made / planned <= MOST_REQUESTS,
            details={"counted": [dict(one.units.requests) for one in merged], "planned": planned},
        ),
        Figure(
            what="others during the units",
            value=", ".join(f"{count} {name}" for name, count in sorted(control.items())) or "none",
        ),
        Figure(what="before and after them", value=shown, details=dict(rest)),
    ]


def memory(options: argparse.Namespace) -> list[Figure]:
    """`plait merge` as a process, looked at every 10 ms."""
    options.out.mkdir(parents=True, exist_ok=True)
    spec: Path = options.out / "merge.yaml"
    spec.write_text(spec_of(model_names(MODELS)))
    with NullServer(options.data) as server:
        ran = run([PLAIT, "merge", spec, "--memory", BUDGET], env=server.environment, every=0.01)
    note(f"{ran.seconds:.1f} s")
    return [
        Figure(
            what=f"K = {MODELS}: anonymous memory at most",
            value=f"{ran.peak_anonymous / 1e6:.0f} MB",
            limit=f"at most {MOST_MEMORY / 1e6:.0f} MB",
            met=ran.peak_anonymous <= MOST_MEMORY,
            details={"anonymous": ran.peak_anonymous, "resident": ran.peak_resident, "seconds": ran.seconds},
        ),
        Figure(what=f"K = {MODELS}: resident at most", value=f"{ran.peak_resident / 1e6:.0f} MB"),
    ]


def headers(options: argparse.Namespace) -> list[Figure]:
    """From a spec to a plan, many sources of many files."""
    folder = options.data.parent / f"headers-{TENSORS}-{SHARDS}"
    make_headers(folder, TENSORS, MANY, SHARDS, (8, 8))
    names = model_names(MANY)
    text = spec_of(names)
    figures: list[Figure] = []

    def planning() -> float:
        started = time.perf_counter()
        plan(text)
        return time.perf_counter() - started

    def measure(what: str, server: Server) -> None:
        use(server)
        seconds = [planning() for _ in range(options.rounds)]
        median = statistics.median(seconds)
        figures.append(
            Figure(
                what=f"{MANY} sub-models + base, {SHARDS} files each, {what}",
                value=f"{median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f})",
                limit=f"under {MOST_PLANNING:g} s",
                met=median < MOST_PLANNING,
                details={"seconds": seconds},
            )
        )

    with NullServer(folder) as server:
        measure("null server", server)

    def on_weed(server: Weed) -> None:
        bring(server, folder, ["base", *names])
        measure("SeaweedFS", server)

    with_weed(options.out, on_weed)
    return figures


def main() -> None:
    """Measure what the options say."""
    runs = {"weed": weed, "null": null, "memory": memory, "headers": headers}
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=tuple(runs))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA / "half", help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=DATA / "s3", help="folder of the server; it is emptied")
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    if not (options.data / "base").exists():
        make_models(options.data, HALF, MODELS)
    warm_up(options.data.parent, MODELS)
    figures = runs[options.what](options)
    shutil.rmtree(options.out, ignore_errors=True)
    size = (options.data / "base" / "model.safetensors").stat().st_size / 1e9
    title = f"K = {MODELS} + base of {size:.2f} GB, {default_threads(remote=True)} threads"
    if options.what == "headers":
        title = f"{TENSORS} tensors a model, the client made anew each time"
    report(f"s3-{options.what}", title, figures, options)


if __name__ == "__main__":
    main()
