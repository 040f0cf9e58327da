"""How long planning a very large merge takes, and in how much memory.

    python benchmarks/plan.py --save
    python benchmarks/plan.py --trillion --save

`plait plan` as a process, of sparse files that hold headers alone (made if they are not there). With
--trillion these are as many experts as make 1.01 trillion bf16 parameters, in 61 files a model, and the
output is on a server that keeps nothing, as no disk here has 2 TB left.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from checkpoints import EXPERT, HEADERS, make_headers, model_names, write_spec
from common import DATA, PLAIT, Figure, note, parser_of, report, run, spread
from null_server import NullServer

MOST_SECONDS = 15.0
MOST_SECONDS_TRILLION = 60.0
MOST_MEMORY = 2e9
EVERY = 0.01
TRILLION = {"tensors": 60 * 384 * 3, "shards": 61}
"""60 layers of 384 experts of three matrices each."""
TRILLION_EXPERT = (2048, 7168)


def make(options: argparse.Namespace) -> tuple[Path, Callable[[str | None], Path]]:
    """The headers; their folder, and what writes a spec that merges them into an output, here by default."""
    kind = "trillion" if options.trillion else f"{options.tensors}-{options.shards}"
    data = (options.data or DATA / f"{HEADERS}-{kind}").resolve()
    sizes = TRILLION_EXPERT if options.trillion else EXPERT
    make_headers(data, options.tensors, options.models, options.shards, sizes)
    sources = [data / name for name in model_names(options.models)]
    method: dict[str, object] = {"name": "select", "resample": 4}

    def spec_into(output: str | None) -> Path:
        return write_spec(data / "merge.yaml", sources, data / "base", method, output or data / "out")

    return data, spec_into


def main() -> None:
    """Measure what the options say."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", type=int, default=20, help="K, without the base")
    parser.add_argument("--tensors", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=1, help="files of each model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help=f"default: {DATA.name}/{HEADERS}-TENSORS-SHARDS")
    parser.add_argument("--trillion", action="store_true", help="experts of 1.01 trillion parameters")
    options = parser.parse_args()
    if options.trillion:
        parser.set_defaults(**TRILLION)
        options = parser.parse_args()
    runs = []
    with ExitStack() as stack:
        data, spec_into = make(options)
        server = stack.enter_context(NullServer(data)) if options.trillion else None
        spec = spec_into("s3://out/merged" if server else None)
        for index in range(options.rounds):
            runs.append(run([PLAIT, "plan", spec], env=server.environment if server else None, every=EVERY))
            note(f"round {index + 1} of {options.rounds}: {runs[-1].seconds:.1f} s")
    seconds = [ran.seconds for ran in runs]
    anonymous, resident = (
        max(getattr(ran, name) for ran in runs) for name in ("peak_anonymous", "peak_resident")
    )
    most = MOST_SECONDS_TRILLION if options.trillion else MOST_SECONDS
    figures = [
        Figure(
            what="time",
            value=spread(seconds),
            limit=f"under {most:g} s",
            met=statistics.median(seconds) < most,
            details={"seconds": seconds},
        ),
        Figure(
            what="resident memory at most",
            value=f"{resident / 1e6:.0f} MB",
            limit=f"under {MOST_MEMORY / 1e6:.0f} MB",
            met=resident < MOST_MEMORY,
            details={"anonymous": anonymous, "resident": resident},
        ),
    ]
    title = (
        f"plait plan, K = {options.models} + base, {options.tensors:,} tensors, {options.shards} file(s) each"
    )
    report("plan-trillion" if options.trillion else f"plan-{options.shards}", title, figures, options)


if __name__ == "__main__":
    main()
