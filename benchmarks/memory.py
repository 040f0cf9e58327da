"""How much memory `plait merge --memory 512MB` takes, with few sub-models and with many.

    python benchmarks/memory.py --save

The process is looked at every 10 ms. What counts is anonymous memory: what it allocated. Pages of the
mapped sources are the page cache's, which gives them up when memory is short; they are reported too.
The 20 sub-models are hard links to the files of 5.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from checkpoints import FULL, Shape, link_models, make_models, model_names, write_spec
from common import DATA, PLAIT, Figure, note, parser_of, report, run

MODELS = 5
MOST = 900e6
BUDGET = "512MB"
EVERY = 0.01


def main() -> None:
    """Measure what the options say."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[5, 20], metavar="K")
    parser.add_argument("--data", type=Path, default=DATA / FULL, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=DATA / "out", help="folder for outputs; it is emptied")
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    if not (data / "base").exists():
        make_models(data, Shape(), MODELS)
    figures = []
    for models in options.models:
        linked = link_models(data, model_names(MODELS), models)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        spec = write_spec(
            out / "merge.yaml", linked, data / "base", {"name": "select", "resample": 4}, out / "merged"
        )
        ran = run([PLAIT, "merge", spec, "--memory", BUDGET], every=EVERY)
        note(f"K = {models}: {ran.seconds:.1f} s")
        figures += [
            Figure(
                what=f"K = {models}: anonymous memory at most",
                value=f"{ran.peak_anonymous / 1e6:.0f} MB",
                limit=f"at most {MOST / 1e6:.0f} MB",
                met=ran.peak_anonymous <= MOST,
                details={
                    "anonymous": ran.peak_anonymous,
                    "resident": ran.peak_resident,
                    "seconds": ran.seconds,
                },
            ),
            Figure(
                what=f"K = {models}: resident at most, mapped pages included",
                value=f"{ran.peak_resident / 1e6:.0f} MB",
            ),
        ]
        for folder in (*linked, out):
            shutil.rmtree(folder)
    size = (data / "base" / "model.safetensors").stat().st_size
    report("memory", f"plait merge --memory {BUDGET}, models of {size / 1e9:.2f} GB", figures, options)


if __name__ == "__main__":
    main()
