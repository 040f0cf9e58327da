"""A whole merge on local files: beside mergekit, and beside what its parts take alone.

    python benchmarks/merge.py compare --mergekit MERGEKIT_VENV/bin/mergekit-yaml --save
    python benchmarks/merge.py gate --save

Both use the checkpoints of checkpoints.py (made if they are not there) and hold them in the page cache,
by reading them all before each run; --cold empties the cache before each run instead. Outputs of
the run before are deleted, and dirty pages written, before a run's time begins.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bare import checksums_alone, floor, kernel_alone
from checkpoints import FULL, SMALL, TINY, Shape, make_models, model_names, write_spec
from common import DATA, PLAIT, Figure, alternate, parser_of, report, run, times

from plait.spec import load_spec
from plait_service.budget import budget_of, default_memory, default_threads
from plait_service.driver import Driver
from plait_service.prepare import prepare
from plait_workers.methods import METHODS

MODELS = 5
AVERAGE_FASTER = 8.0
SELECT_FASTER = 6.0
MOST_OF_PARTS = 1.15
SELECT: dict[str, object] = {"name": "select", "resample": 4}
AVERAGE: dict[str, object] = {"name": "average"}
MERGEKIT_ALWAYS = "--no-copy-tokenizer --no-write-model-card --quiet"
MERGEKIT_TRIES = ("-j 1", "-j 2", "-j 2 --async-write --out-shard-size 300M")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_DROP = Path("/proc/sys/vm/drop_caches")


class Bench:
    """Sources, a folder for outputs, and what is done between two runs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.models = [options.data / name for name in model_names(MODELS)]
        self.base: Path = options.data / "base"
        self.out: Path = options.out
        self.cold: bool = options.cold
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)

    @property
    def files(self) -> list[Path]:
        """Of the sub-models, then of the base."""
        return [folder / "model.safetensors" for folder in (*self.models, self.base)]

    def before(self) -> None:
        """Delete outputs, write dirty pages, and fill or empty the page cache."""
        for path in self.out.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".yaml":
                path.unlink()
        os.sync()
        if self.cold:
            _DROP.write_text("3\n")
            return
        buffer = bytearray(4 << 20)
        for path in self.files:
            with open(path, "rb", 0) as file:
                while file.readinto(buffer):
                    pass

    def spec(self, name: str, method: dict[str, object]) -> Path:
        """A merge.yaml of all sub-models; `average` is given no base, as it would not read it."""
        base = self.base if method["name"] == "select" else None
        return write_spec(self.out / f"{name}.yaml", self.models, base, method, self.out / name)

    def mergekit_config(self) -> Path:
        """The same merge as `average`, for mergekit: the mean of all sub-models, in bf16."""
        path = self.out / "mergekit.yaml"
        models = "".join(f"  - {{model: {model}, parameters: {{weight: 1.0}}}}\n" for model in self.models)
        path.write_text(f"merge_method: linear\ndtype: bfloat16\nmodels:\n{models}")
        return path


def commands(bench: Bench, mergekit: Path, tries: Sequence[str]) -> dict[str, Callable[[], float]]:
    """Whole processes by name: both methods, and mergekit once with each try's options."""
    specs = {"average": bench.spec("average", AVERAGE), "select n = 4": bench.spec("select", SELECT)}
    config = bench.mergekit_config()

    def plait(spec: Path) -> Callable[[], float]:
        return lambda: run([PLAIT, "merge", spec]).seconds

    def linear(options: str) -> Callable[[], float]:
        words = [*shlex.split(MERGEKIT_ALWAYS), *shlex.split(options)]
        return lambda: run([mergekit, config, bench.out / "mergekit", *words], env=_OFFLINE).seconds

    return {
        **{f"plait {name}": plait(spec) for name, spec in specs.items()},
        **{f"mergekit linear {options}": linear(options) for options in tries},
    }


def compare(options: argparse.Namespace) -> list[Figure]:
    """Whole processes, of the full models, and of tiny ones to see what starting costs.

    What counts of mergekit is the fastest of its tries.
    """
    bench, tries = Bench(options), options.mergekit_options or MERGEKIT_TRIES
    for start in commands(tiny_bench(options), options.mergekit, tries[:1]).values():
        start()  # compiles byte code; not timed
    seconds = alternate(options.rounds, commands(bench, options.mergekit, tries), bench.before)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(tries, key=lambda words: median[f"mergekit linear {words}"])
    tiny = tiny_bench(options)
    starts = alternate(options.rounds, commands(tiny, options.mergekit, [best]), tiny.before)
    rest = {name: median[name] - statistics.median(values) for name, values in starts.items()}
    figures = [times(name, values) for name, values in seconds.items()]
    theirs = f"mergekit linear {best}"
    asked = {"plait average": AVERAGE_FASTER, "plait select n = 4": SELECT_FASTER}
    for name, least in asked.items():
        ratio = median[theirs] / median[name]
        shown, met = ("", None) if bench.cold else (f"at least {least:g} x", ratio >= least)
        figures.append(Figure(what=f"mergekit / {name}", value=f"{ratio:.2f} x", limit=shown, met=met))
    figures += [times(f"{name}, tiny model", values) for name, values in starts.items()]
    figures += [
        Figure(what=f"mergekit / {name}, less tiny model", value=f"{rest[theirs] / rest[name]:.2f} x")
        for name in asked
    ]
    return figures


def tiny_bench(options: argparse.Namespace) -> Bench:
    """The same with models of a megabyte."""
    folder = options.data.parent / TINY
    make_models(folder, SMALL, MODELS)
    return Bench(argparse.Namespace(data=folder, out=options.out / "tiny", cold=False))


def gate(options: argparse.Namespace) -> list[Figure]:
    """`select` in this process, its start not counted, against its parts alone."""
    bench, threads = Bench(options), default_threads()
    merge_once(tiny_bench(options).spec("warm-up", SELECT))
    spec = bench.spec("select", SELECT)
    size = bench.files[-1].stat().st_size
    synced: list[float] = []

    def bare_floor() -> float:
        seconds, sync = floor(bench.files, bench.out / "floor", threads)
        synced.append(sync)
        return seconds

    runs = {
        "merge": lambda: merge_once(spec),
        "floor": bare_floor,
        "kernel": kernel_alone(MODELS, size // 2, threads),
        "checksums": lambda: checksums_alone(MODELS, size, threads),
    }
    seconds = alternate(options.rounds, runs, bench.before)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    parts, sync = median["floor"] + median["kernel"], statistics.median(synced)
    ratio = median["merge"] / parts
    figures = [
        times("select n = 4, start not counted", seconds["merge"]),
        times(f"floor: read {len(bench.files)} files, write one", seconds["floor"]),
        times("then: the disk has the output", synced),
        times("kernel alone, same elements", seconds["kernel"]),
        times("checksums of the output alone", seconds["checksums"]),
    ]
    shown, met = ("", None) if bench.cold else (f"at most {MOST_OF_PARTS} x", ratio <= MOST_OF_PARTS)
    figures.append(Figure(what="merge / (floor + kernel)", value=f"{ratio:.3f} x", limit=shown, met=met))
    with_sync = median["merge"] / (parts + sync)
    figures.append(Figure(what="merge / (floor + disk + kernel)", value=f"{with_sync:.3f} x"))
    return figures


def merge_once(spec: Path) -> float:
    """Plan and run a merge in this process. Seconds."""
    read = load_spec(spec.read_text(), methods=METHODS)
    started = time.perf_counter()
    prepared = prepare(read)
    budget = budget_of(prepared.plan.job, prepared.output, memory=default_memory(), threads=default_threads())
    Driver(prepared, budget, overwrite=True).run()
    return time.perf_counter() - started


def main() -> None:
    """Measure what the options say."""
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=("compare", "gate"))
    parser.add_argument("--mergekit", type=Path, help="the mergekit-yaml to compare with")
    parser.add_argument(
        "--mergekit-options", action="append", help=f"one try; default: {' and '.join(MERGEKIT_TRIES)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA / FULL, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=DATA / "out", help="folder for outputs; it is emptied")
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each run (as root)")
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    if not (options.data / "base").exists():
        make_models(options.data, Shape(), MODELS)
    if options.what == "compare" and options.mergekit is None:
        parser.error("compare needs --mergekit")
    if options.cold and not os.access(_DROP, os.W_OK):
        parser.error("only root can empty the page cache")
    figures = compare(options) if options.what == "compare" else gate(options)
    shutil.rmtree(options.out)
    size = (options.data / "base" / "model.safetensors").stat().st_size
    cache = "cold" if options.cold else "in the page cache"
    title = f"K = {MODELS} + base of {size / 1e9:.2f} GB, {cache}, {default_threads()} threads"
    report(f"merge-{options.what}{'-cold' if options.cold else ''}", title, figures, options)


if __name__ == "__main__":
    main()
