"""How fast `merge_state_dicts` merges tensors in memory, on the CPU and on a GPU if there is one.

    python benchmarks/state_dicts.py --save

K = 5 and a base, bf16, half changed. One thread and all threads of torch, and devices, take turns. A GPU's
time has the copies to the CPU and back in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from common import Figure, alternate, parser_of, report

from plait_workers import merge_state_dicts

State = dict[str, torch.Tensor]
MODELS = 5
METHODS: Mapping[str, Mapping[str, object]] = {
    "select n = 4": {"name": "select", "resample": 4},
    "average": {"name": "average"},
}


def family(tensors: int, side: int) -> tuple[State, list[State]]:
    """A base of square tensors, and sub-models that differ from it in half of the elements."""
    generator = torch.Generator().manual_seed(1)

    def noise() -> torch.Tensor:
        return torch.randn(side, side, generator=generator).bfloat16()

    def tuned(tensor: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.rand(side, side, generator=generator) < 0.5, tensor, noise())

    base = {f"layers.{index}.weight": noise() for index in range(tensors)}
    return base, [{name: tuned(tensor) for name, tensor in base.items()} for _ in range(MODELS)]


def moved(state: State, device: str) -> State:
    """A copy on a device."""
    return {name: tensor.to(device) for name, tensor in state.items()}


def merging(
    base: State, models: list[State], method: Mapping[str, object], threads: int
) -> Callable[[], float]:
    """Merge once, and return the seconds."""

    def run() -> float:
        torch.set_num_threads(threads)
        began = time.perf_counter()
        merge_state_dicts(models, base, method)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return run


def main() -> None:
    """Measure what the options say."""
    parser = parser_of(__doc__)
    parser.add_argument("--tensors", type=int, default=12)
    parser.add_argument("--side", type=int, default=4096, help="a tensor has its square of elements")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    base, models = family(options.tensors, options.side)
    elements, most = options.tensors * options.side**2, torch.get_num_threads()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    runs = {}
    for device in devices:
        there = moved(base, device), [moved(model, device) for model in models]
        for name, method in METHODS.items():
            for threads in sorted({1, most}):
                runs[f"{device}: {name}, {threads} thread(s)"] = merging(*there, method, threads)
    for run in runs.values():  # first touches, and pinned memory
        run()
    figures = []
    for name, seconds in alternate(options.rounds, runs).items():
        median = statistics.median(seconds)
        value = f"{median:.3f} s, {elements / median / 1e6:.0f} M/s"
        figures.append(Figure(what=name, value=value, details={"seconds": seconds}))
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    title = f"{elements / 1e6:.0f} M elements of K = {MODELS} and a base, torch {torch.__version__}{gpu}"
    report("state-dicts", title, figures, options)


if __name__ == "__main__":
    main()
