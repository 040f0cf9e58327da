"""What every benchmark shares: what it ran on, processes that are watched, saved results, tables."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from plait_workers.kernels.native import levels

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
RESULTS = HERE / "results"
PLAIT = Path(sys.executable).with_name("plait")
"""The command as it is installed beside the interpreter that runs the benchmark."""

_STATUS_FIELDS = {b"RssAnon:": 0, b"VmHWM:": 1}
_console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A process that ended well.

    Args:
        seconds: from its start to its end.
        cpu_seconds: user and system time of it and its children.
        peak_anonymous: most anonymous memory seen, in bytes; 0 if it was not sampled.
        peak_resident: most resident memory, mapped files included, as the kernel counted it.
    """

    seconds: float
    cpu_seconds: float
    peak_anonymous: int = 0
    peak_resident: int = 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure and what was measured against it.

    Args:
        what: one row of the table.
        value: as it is shown.
        limit: what is asked for, or "" where the row is there for comparison.
        met: whether it is; None for a row without a limit.
        details: numbers behind the value, for the saved file.
    """

    what: str
    value: str
    limit: str = ""
    met: bool | None = None
    details: Mapping[str, Any] | None = None


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have.

    Args:
        text: the script's docstring.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/NAME-DATE.json")
    return parser


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, memory, versions, commit."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    names = ("numpy", "plait")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "kernels": levels()[0],
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def report(name: str, title: str, figures: Sequence[Figure], options: argparse.Namespace) -> None:
    """Print the machine and a table; with --save, write both to a file."""
    facts = machine()
    _console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / 1e9:.0f} GB; "
        f"Python {facts['python']}, numpy {facts['numpy']}, kernels {facts['kernels']}, "
        f"plait {facts['plait']} at {facts['commit']}{', changed' if facts['uncommitted_changes'] else ''}",
        highlight=False,
    )
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("figure", justify="right")
    table.add_column("met")
    for figure in figures:
        met = "" if figure.met is None else "yes" if figure.met else "NO"
        table.add_row(figure.what, figure.value, figure.limit, met)
    _console.print(table)
    if options.save:
        chosen = {  # of a path its last name: the rest is the machine's affair
            key: value.name if isinstance(value, Path) else value
            for key, value in vars(options).items()
            if key != "save"
        }
        _save(
            name,
            {"title": title, "machine": facts, "options": chosen, "figures": [asdict(f) for f in figures]},
        )


def _save(name: str, result: Mapping[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    _console.print(f"saved {path.relative_to(HERE.parent)}")


def note(text: str) -> None:
    """Say what goes on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def alternate(
    rounds: int, runs: Mapping[str, Callable[[], float]], before: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Run everything once a round, each round starting with another one; a slow minute hits all.

    Args:
        rounds: how often.
        runs: what returns its own time, by name.
        before: done before each run, outside of what it times.
    """
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            before()
            seconds[name].append(runs[name]())
            note(f"round {index + 1} of {rounds}: {name} {seconds[name][-1]:.3f} s")
    return seconds


def times(what: str, values: Sequence[float]) -> Figure:
    """A row of seconds, without a limit."""
    return Figure(what=what, value=spread(values), details={"seconds": values})


def spread(values: Sequence[float]) -> str:
    """Median, least and most, for a table of seconds."""
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    every: float | None = None,
) -> Ran:
    """Run a process, wait for it, and say what it cost.

    Args:
        command: what to run; its standard output is dropped.
        env: put over this process's environment.
        every: seconds between two looks at its memory; none looks never.

    Raises:
        RuntimeError: it failed; with what it wrote to standard error.
    """
    environment = {**os.environ, **(env or {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its byte code
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if every is None else None
    )
    if every is None:
        said = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        peaks = [0, 0]
    else:
        said, peaks = b"", [0, 0]
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peaks = [max(pair) for pair in zip(peaks, _memory(process.pid), strict=True)]
            time.sleep(every)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.stderr:
        process.stderr.close()
    if process.returncode:
        raise RuntimeError(
            f"{command[0]} ended with {process.returncode}\n{said.decode(errors='replace')[-4000:]}"
        )
    return Ran(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_anonymous=peaks[0],
        peak_resident=peaks[1],
    )


def _memory(pid: int) -> list[int]:
    """Anonymous memory now and resident memory at most, in bytes; 0 once the process is gone."""
    found = [0, 0]
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                name, _, rest = line.partition(b"\t")
                if name in _STATUS_FIELDS:
                    found[_STATUS_FIELDS[name]] = int(rest.split()[0]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return [0, 0]
    return found
