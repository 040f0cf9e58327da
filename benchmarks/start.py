"""How long `import plait` and `plait --help` take, beside an interpreter that does nothing.

python benchmarks/start.py --save
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common import PLAIT, Figure, alternate, parser_of, report, run

COMMANDS: Mapping[str, tuple[Sequence[str | Path], float | None]] = {
    "python -c pass": ([sys.executable, "-c", "pass"], None),
    "import plait": ([sys.executable, "-c", "import plait"], 0.150),
    "plait --help": ([PLAIT, "--help"], 0.400),
}
"""What is run, and the most seconds that its whole process may take."""


def _timed(command: Sequence[str | Path]) -> Callable[[], float]:
    return lambda: run(command).seconds


def main() -> None:
    """Measure what the options say."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    runs = {name: _timed(command) for name, (command, _) in COMMANDS.items()}
    for start in runs.values():  # writes byte code
        start()
    figures = []
    for name, seconds in alternate(options.rounds, runs).items():
        limit, median = COMMANDS[name][1], statistics.median(seconds)
        figures.append(
            Figure(
                what=name,
                value=f"{median * 1e3:.0f} ms ({min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f})",
                limit=f"under {limit * 1e3:.0f} ms" if limit else "",
                met=median < limit if limit else None,
                details={"seconds": seconds},
            )
        )
    report("start", f"whole processes, median of {options.rounds}", figures, options)


if __name__ == "__main__":
    main()
