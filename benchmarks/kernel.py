"""How fast `select` merges on one core, beside a plain copy of the same bytes.

    python benchmarks/kernel.py --save

Everything goes through the merger that a merge uses. Two sizes: steps that stay in the core's cache,
in buffers cut like those of a worker's thread (this is what the figures are about: the arithmetic),
and arrays far larger than any cache. Variants take turns, round by round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from checkpoints import tuned, weights
from common import Figure, note, parser_of, report

from plait_service.budget import CACHE_SHARE, MAX_STEP, MIN_STEP
from plait_workers.checkpoint.dtypes import DTYPES
from plait_workers.methods.base import Bits, Merger, TensorContext
from plait_workers.methods.selection import Select
from plait_workers.workspace import Workspace

LEAST = {2: 300e6, 5: 275e6, 10: 220e6, 20: 155e6}
"""Elements a second asked for, by K."""
RATIOS = (
    ("n = 4", "copy", None),
    ("n = 4", "n = 1", 1.03),
    ("unequal", "n = 4", 1.6),
    ("values around 1", "n = 4", None),
)
"""Whose time is set against whose, and the most that is asked for."""
CACHE = "in cache"
MEMORY = "in memory"
_BF16 = DTYPES["BF16"]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """K sub-models and a base in memory, half of the elements changed, and a place for the result."""

    inputs: list[Bits]
    base: Bits
    out: Bits

    @property
    def num_elements(self) -> int:
        """Of one source."""
        return len(self.base)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Something to time: it does a stretch once, as the stretch at element ``first`` of a tensor."""

    do: Callable[[int], None]
    num_elements: int
    seconds: list[float] = field(default_factory=list)

    def round(self, elements: int) -> None:
        """Do at least ``elements`` elements and note the seconds an element."""
        times = -(-elements // self.num_elements)
        started = time.perf_counter()
        for index in range(times):
            self.do(index * self.num_elements)
        self.seconds.append((time.perf_counter() - started) / (times * self.num_elements))

    @property
    def rate(self) -> float:
        """Elements a second, by the median round."""
        return 1 / statistics.median(self.seconds)

    @property
    def details(self) -> dict[str, float]:
        """Elements a second: the median, best and worst round."""
        return {"median": self.rate, "best": 1 / min(self.seconds), "worst": 1 / max(self.seconds)}


def step_bytes(sources: int) -> int:
    """Bytes of one source in a step, as a merge with memory enough chooses them."""
    return min(MAX_STEP, max(MIN_STEP, CACHE_SHARE // sources // 4096 * 4096))


def in_cache(models: int) -> Stretch:
    """A stretch of one step, in a worker's own buffers; values are small, as weights are."""
    step = step_bytes(models + 1)
    workspace = Workspace(step_bytes=step, num_sources=models + 1)
    places = [np.frombuffer(workspace.scratch(source, step), np.uint16) for source in range(models + 1)]
    return _filled(places[:models], places[models], np.frombuffer(bytearray(step), np.uint16))


def in_memory(models: int, elements: int) -> Stretch:
    """A stretch of arrays that no cache holds."""
    places = [np.empty(elements, np.uint16) for _ in range(models + 2)]
    return _filled(places[:models], places[models], places[models + 1])


def _filled(inputs: list[Bits], base: Bits, out: Bits) -> Stretch:
    generator = np.random.Generator(np.random.SFC64(5))
    base[:] = weights(generator, len(base))
    for values in inputs:
        values[:] = tuned(base, generator)
    out[:] = 0  # no page of it is new when it is timed
    return Stretch(inputs=inputs, base=base, out=out)


def around_one(stretch: Stretch) -> Stretch:
    """The same with values from 0.5 to 8: no small ones, as a norm's or an embedding's may be."""
    scale = np.uint16(8 << 7)  # 2**8
    inputs = [values + scale for values in stretch.inputs]
    return Stretch(inputs=inputs, base=stretch.base + scale, out=np.zeros_like(stretch.out))


def merger_of(models: int, resample: int, factors: Sequence[float]) -> Merger:
    """`select`, bound to a bf16 tensor as a merge binds it."""
    context = TensorContext(
        name="model.layers.0.mlp.gate_proj.weight",
        inputs=(_BF16,) * models,
        base=_BF16,
        working=_BF16,
        output=_BF16,
        weights=tuple(factors),
        seed=0,
    )
    return Select(resample=resample).merger(context)


def selecting(stretch: Stretch, resample: int = 4, factors: Sequence[float] | None = None) -> Variant:
    """Merge the stretch."""
    models = len(stretch.inputs)
    merger = merger_of(models, resample, factors or [1.0] * models)
    counters = np.zeros(2 * models + 2, np.int64)

    def do(first: int) -> None:
        merger.merge(stretch.inputs, stretch.base, stretch.out, first, counters)

    do(0)  # loads the kernels
    return Variant(do=do, num_elements=stretch.num_elements)


def copying(stretch: Stretch) -> Variant:
    """Copy all K + 1 sources, one after the other, to where the result would go."""

    def do(_first: int) -> None:
        for values in (*stretch.inputs, stretch.base):
            np.copyto(stretch.out, values)

    return Variant(do=do, num_elements=stretch.num_elements)


def measure(models: int, stretch: Stretch, rounds: int, elements: int, place: str) -> list[Figure]:
    """The rows of one K."""
    note(f"K = {models}, {place}: {stretch.num_elements * 2 / 1e6:.2f} MB a source")
    unequal = [1.0 + index for index in range(models)]
    variants = {
        "n = 4": selecting(stretch),
        "n = 1": selecting(stretch, resample=1),
        "unequal": selecting(stretch, factors=unequal),
        "values around 1": selecting(around_one(stretch)),
        "copy": copying(stretch),
    }
    for index in range(rounds):
        names = list(variants)
        first = index % len(names)
        for name in names[first:] + names[:first]:
            variants[name].round(elements)
    label, judged = f"K = {models}, {place}", place == CACHE
    rate = variants["n = 4"].rate
    least = LEAST.get(models) if judged else None
    figures = [
        Figure(
            what=f"{label}: n = 4",
            value=_rate(variants["n = 4"]),
            limit=f"at least {least / 1e6:.0f} M" if least else "",
            met=rate >= least if least else None,
            details={name: variant.details for name, variant in variants.items()},
        ),
        Figure(what=f"{label}: copyto of the same bytes", value=_rate(variants["copy"])),
    ]
    for name, over, most in RATIOS:
        ratio = statistics.median(
            one / other for one, other in zip(variants[name].seconds, variants[over].seconds, strict=True)
        )
        asked = most if judged else None
        figures.append(
            Figure(
                what=f"{label}: time of {name} / {over}",
                value=f"{ratio:.3f} x",
                limit=f"at most {asked} x" if asked else "",
                met=ratio <= asked if asked else None,
            )
        )
    return figures


def _rate(variant: Variant) -> str:
    return f"{variant.rate / 1e6:.0f} M/s (best {1e-6 / min(variant.seconds):.0f})"


def main() -> None:
    """Measure what the options say."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=list(LEAST), metavar="K")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--elements", type=int, default=4 << 20, help="in a round of a variant")
    parser.add_argument("--memory-rounds", type=int, default=8, help="0 leaves large arrays out")
    parser.add_argument("--memory-elements", type=int, default=32 << 20, help="of one large array")
    options = parser.parse_args()
    figures = []
    for models in options.models:
        figures += measure(models, in_cache(models), options.rounds, options.elements, CACHE)
    for models in options.models if options.memory_rounds else []:
        stretch = in_memory(models, options.memory_elements)
        figures += measure(models, stretch, options.memory_rounds, 1, MEMORY)
    report("kernel", "select, bf16, half changed, one core", figures, options)


if __name__ == "__main__":
    main()
