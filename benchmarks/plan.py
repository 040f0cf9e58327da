"""How long planning a very large merge takes, and in how much memory.

    python benchmarks/plan.py --save

`plait plan` as a process, of sparse files that hold headers alone (made if they are not there).
"""

from __future__ import annotations

import statistics
from pathlib import Path

from checkpoints import HEADERS, make_headers, model_names, write_spec
from common import DATA, PLAIT, Figure, note, parser_of, report, run, spread

MOST_SECONDS = 15.0
MOST_MEMORY = 2e9
EVERY = 0.01


def main() -> None:
    """Measure what the options say."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", type=int, default=20, help="K, without the base")
    parser.add_argument("--tensors", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=1, help="files of each model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help=f"default: {DATA.name}/{HEADERS}-TENSORS-SHARDS")
    options = parser.parse_args()
    data = (options.data or DATA / f"{HEADERS}-{options.tensors}-{options.shards}").resolve()
    make_headers(data, options.tensors, options.models, options.shards)
    spec = write_spec(
        data / "merge.yaml",
        [data / name for name in model_names(options.models)],
        data / "base",
        {"name": "select", "resample": 4},
        data / "out",
    )
    runs = []
    for index in range(options.rounds):
        runs.append(run([PLAIT, "plan", spec], every=EVERY))
        note(f"round {index + 1} of {options.rounds}: {runs[-1].seconds:.1f} s")
    seconds = [ran.seconds for ran in runs]
    anonymous, resident = (
        max(getattr(ran, name) for ran in runs) for name in ("peak_anonymous", "peak_resident")
    )
    figures = [
        Figure(
            what="time",
            value=spread(seconds),
            limit=f"under {MOST_SECONDS:g} s",
            met=statistics.median(seconds) < MOST_SECONDS,
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
    report(f"plan-{options.shards}", title, figures, options)


if __name__ == "__main__":
    main()
