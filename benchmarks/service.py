"""The job service under load, with 50,000 jobs in its table; and 500 watchers of one job.

python benchmarks/service.py load --save
python benchmarks/service.py watchers --save
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import DATA, HERE, Figure, note, parser_of, report
from service_process import Serving
from service_rows import TEAMS, PlayedDriver, fill, token_of

MOST = {"get": 0.025, "list": 0.060}
LEAST_SUBMITTED = 100.0
MOST_MEMORY = 400e6
_NAMES = {"get": "GET job", "list": "list", "submit": "submit"}
_FIRST = 10_000_000
"""Numbers of jobs that are submitted begin here; each run of clients has its own."""


class Bench:
    """A service in a folder of its own, one slot, which a played driver has: whatever is submitted waits."""

    def __init__(self, folder: Path, url: str, token: str, ids: Sequence[str], service: Serving) -> None:
        self.folder = folder
        self.service = service
        self._common = {"url": url, "token": token, "ids": list(ids)}
        self._runs = 0

    def clients(self, **wanted: Any) -> dict[str, Any]:
        """Have clients do it, in a process of their own; with the processor time that the service took."""
        self._runs += 1
        wanted = {**self._common, "first": self._runs * _FIRST, **wanted}
        before = self.service.cpu_seconds()
        done = subprocess.run(
            [sys.executable, str(HERE / "service_clients.py"), "load"],
            input=json.dumps(wanted),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        found["cpu"] = self.service.cpu_seconds() - before
        return found


def load(options: argparse.Namespace) -> list[Figure]:
    """Latencies at a stated rate, and how fast a few clients go."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DATA) as name:
        folder = Path(name)
        note(f"making {options.jobs} jobs")
        ids = fill(folder, options.jobs)
        token = token_of(folder, TEAMS[0])
        # Every fourth job is of the other team; GET asks for those that the token sees.
        seen = [job for number, job in enumerate(ids) if number % 4 != 3]
        with (
            PlayedDriver(folder),
            Serving(folder, "--slots", "1", "--requests-per-minute", "100000000") as service,
        ):
            bench = Bench(folder, service.url, token, seen, service)
            return _measured(bench, options)


def _measured(bench: Bench, options: argparse.Namespace) -> list[Figure]:
    rates = {"get": options.rate * 0.5, "list": options.rate * 0.3, "submit": options.rate * 0.2}
    figures = _open(bench, options, rates, f"{options.rate:g} requests/s, 5 : 3 : 2", held=True)
    hard = {**rates, "submit": LEAST_SUBMITTED}
    figures += _open(bench, options, hard, f"the same, and {LEAST_SUBMITTED:g} submissions/s", held=False)
    for kind in ("submit", "get", "list"):
        found = bench.clients(kind=kind, connections=options.clients, seconds=options.seconds)
        count = len(found["seen"])
        rate = count / found["seconds"]
        times = sorted(seconds for _, seconds in found["seen"])
        is_held = kind == "submit"
        note(f"{kind}: {rate:.0f} a second, {found['cpu'] / count * 1000:.2f} ms of processor each")
        figures.append(
            Figure(
                what=f"{_NAMES[kind]}, {options.clients} clients without pause",
                value=f"{rate:.0f}/s; {_shown(times)}",
                limit=f"at least {LEAST_SUBMITTED:g}/s" if is_held else "",
                met=rate >= LEAST_SUBMITTED if is_held else None,
                details={"requests": count, "service processor seconds": found["cpu"], **_details(found)},
            )
        )
    peak = f"{bench.service.memory()['peak'] / 1e6:.0f} MB"
    return [*figures, Figure(what="the service's resident memory at most", value=peak)]


def _open(
    bench: Bench, options: argparse.Namespace, rates: dict[str, float], how: str, *, held: bool
) -> list[Figure]:
    found = bench.clients(rates=rates, connections=options.connections, seconds=options.seconds)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for what, seconds in found["seen"]:
        by_kind[what.split(" ")[0]].append(seconds)
    figures = []
    for kind, times in sorted(by_kind.items()):
        most = MOST.get(kind)
        times.sort()
        value = _shown(times)
        note(f"{how}: {kind} {value}")
        is_held = held and most is not None
        figures.append(
            Figure(
                what=f"{_NAMES[kind]}: {how}",
                value=value,
                limit=f"p99 under {most * 1000:g} ms" if is_held and most else "",
                met=_share(times, 0.99) < most if is_held and most else None,
                details={"requests": len(times), "service processor seconds": found["cpu"]}
                | (_details(found) if kind == "list" else {}),
            )
        )
    return figures


def _share(times: Sequence[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))]


def _shown(times: Sequence[float]) -> str:
    return (
        f"p50 {_share(times, 0.5) * 1000:.1f}, p99 {_share(times, 0.99) * 1000:.1f}, "
        f"most {times[-1] * 1000:.1f} ms"
    )


def _details(found: dict[str, Any]) -> dict[str, Any]:
    by_form: dict[str, list[float]] = defaultdict(list)
    for what, seconds in found["seen"]:
        by_form[what].append(seconds)
    return {what: {"requests": len(times), "shown": _shown(sorted(times))} for what, times in by_form.items()}


def watchers(options: argparse.Namespace) -> list[Figure]:
    """Many streams of one job's events, to its end."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DATA) as name:
        folder = Path(name)
        with PlayedDriver(folder) as driver, Serving(folder) as service:
            token = token_of(folder, TEAMS[0])
            idle = service.memory()["resident"]
            wanted = {"url": service.url, "token": token, "job": driver.job, "streams": options.streams}
            command = [sys.executable, str(HERE / "service_clients.py"), "watch"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen(command, text=True, **pipes) as clients:
                assert clients.stdin is not None
                assert clients.stdout is not None
                began = time.monotonic()
                clients.stdin.write(json.dumps(wanted))
                clients.stdin.close()
                first = clients.stdout.readline()
                opened = time.monotonic() - began
                if first != "open\n":
                    raise RuntimeError(f"not all streams were opened: {first[:2000]}")
                before = service.cpu_seconds()
                for index in range(options.events):
                    driver.say("progress", bytes_done=index, bytes_total=options.events, rate=1e8)
                    time.sleep(options.pause)
                driver.end()
                ended = time.time()
                found = json.loads(clients.stdout.readline())
            memory = service.memory()
            spent = service.cpu_seconds() - before
    return _watched(options, found, ended, {"idle": idle, **memory}, {"opened": opened, "processor": spent})


def _watched(
    options: argparse.Namespace,
    found: dict[str, Any],
    ended: float,
    memory: dict[str, int],
    spent: dict[str, float],
) -> list[Figure]:
    streams = found["streams"]
    count = options.events + 1  # and the last state
    whole = [end for is_end, ids, end in streams if is_end and ids == list(range(1, count + 1))]
    after = sorted(end - ended for end in whole)
    return [
        Figure(
            what=f"streams that saw all {count} events, in order, and the end",
            value=f"{len(whole)} of {options.streams}",
            limit="all",
            met=len(whole) == options.streams,
            details={"errors": found["errors"], **spent},
        ),
        Figure(
            what="the service's resident memory at most",
            value=f"{memory['peak'] / 1e6:.0f} MB (before: {memory['idle'] / 1e6:.0f} MB)",
            limit=f"under {MOST_MEMORY / 1e6:g} MB",
            met=memory["peak"] < MOST_MEMORY,
            details=memory,
        ),
        Figure(
            what="from the driver's end to a stream's",
            value=f"{statistics.median(after):.2f} s, at most {after[-1]:.2f} s" if after else "none",
        ),
        Figure(what="the service's processor time meanwhile", value=f"{spent['processor']:.1f} s"),
    ]


def main() -> None:
    """Measure what the options say."""
    runs = {"load": load, "watchers": watchers}
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=tuple(runs))
    parser.add_argument("--jobs", type=int, default=50_000, help="in the table")
    parser.add_argument("--rate", type=float, default=100, help="requests a second, of all kinds")
    parser.add_argument("--connections", type=int, default=16, help="of the open loop")
    parser.add_argument("--clients", type=int, default=4, help="of the closed loops")
    parser.add_argument("--seconds", type=float, default=30, help="of each run of clients")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--events", type=int, default=100, help="that the watched job's driver writes")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two of them")
    options = parser.parse_args()
    titles = {
        "load": f"the service on SQLite, {options.jobs:,} jobs, service and clients on the same cores",
        "watchers": f"{options.streams} streams of a job's events",
    }
    report(f"service-{options.what}", titles[options.what], runs[options.what](options), options)


if __name__ == "__main__":
    main()
