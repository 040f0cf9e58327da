"""Make synthetic Llama-shaped checkpoints: a base and K sub-models, or headers alone.

    python benchmarks/checkpoints.py                          # base and 5 sub-models of 1.1B, 2.2 GB each
    python benchmarks/checkpoints.py --tensors 100000 --models 20 --out benchmarks/data/headers

Values are bf16 with random sign and mantissa and a magnitude of 2**-9 to 2**-5. In each sub-model a
random half of the elements differ from the base, in the last three bits. With --tensors the files
are sparse: headers are written and tensors are not.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
from common import DATA, note

from plait.spec import MergeSpec
from plait_workers.checkpoint.dtypes import DTYPES, Dtype
from plait_workers.checkpoint.header import build_header

FULL = "full"
TINY = "tiny"
HEADERS = "headers"
MAX_MODELS = 512

_BF16 = DTYPES["BF16"]
_METADATA = {"format": "pt"}
_CHUNK = 4 << 20  # elements
_RECIPE = "recipe.json"
EXPERT = (64, 768)  # small, so that the result fits on any disk: a plan looks whether it does

Entry = tuple[str, Dtype, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama's sizes. The defaults are those of a 1.1B model with grouped keys and values."""

    layers: int = 22
    hidden: int = 2048
    intermediate: int = 5632
    vocabulary: int = 32000
    heads: int = 32
    kv_heads: int = 4

    def entries(self) -> list[Entry]:
        """Every tensor, in the order of the layers."""
        wide, narrow = (self.hidden, self.hidden), (self.hidden * self.kv_heads // self.heads, self.hidden)
        up, down = (self.intermediate, self.hidden), (self.hidden, self.intermediate)
        of_layer: list[tuple[str, tuple[int, ...]]] = [
            ("input_layernorm", (self.hidden,)),
            ("mlp.down_proj", down),
            ("mlp.gate_proj", up),
            ("mlp.up_proj", up),
            ("post_attention_layernorm", (self.hidden,)),
            ("self_attn.k_proj", narrow),
            ("self_attn.o_proj", wide),
            ("self_attn.q_proj", wide),
            ("self_attn.v_proj", narrow),
        ]
        vocabulary = (self.vocabulary, self.hidden)
        entries: list[Entry] = [("model.embed_tokens.weight", _BF16, vocabulary)]
        for layer in range(self.layers):
            entries += [(f"model.layers.{layer}.{name}.weight", _BF16, shape) for name, shape in of_layer]
        return [*entries, ("model.norm.weight", _BF16, (self.hidden,)), ("lm_head.weight", _BF16, vocabulary)]

    def config(self) -> dict[str, object]:
        """config.json, as far as programs that merge look at it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }


SMALL = Shape(layers=2, hidden=128, intermediate=352, vocabulary=512, heads=8, kv_heads=2)
"""For warm-ups, and to see what the start of a program costs."""


def model_names(models: int) -> list[str]:
    """Folder names of K sub-models."""
    return [f"model-{index:02d}" for index in range(models)]


def make_models(folder: Path, shape: Shape, models: int) -> None:
    """Write ``base`` and K sub-models into ``folder``, unless they are there."""
    entries = shape.entries()
    recipe = {**asdict(shape), "models": models}
    if _is_made(folder, recipe):
        return
    header = build_header(entries, _METADATA)
    total = sum(prod(sizes) for _, _, sizes in entries)
    names = ["base", *model_names(models)]
    note(f"writing {len(names)} checkpoints of {(len(header) + 2 * total) / 1e9:.2f} GB into {folder}")
    for name in names:
        _new_model(folder / name, shape)
    generators = [np.random.Generator(np.random.SFC64([11, index])) for index in range(len(names))]
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / name / "model.safetensors", "wb", 0)) for name in names]
        for file in files:
            file.write(header)
        for start in range(0, total, _CHUNK):
            count = min(_CHUNK, total - start)
            base = weights(generators[0], count)
            for file, generator in zip(files, generators, strict=True):
                file.write(base.data if file is files[0] else tuned(base, generator).data)
    _note_made(folder, recipe)


def weights(generator: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """``count`` bf16 bit patterns: random sign, two bits of the exponent, and mantissa."""
    return (_random(generator, count) & np.uint16(0x81FF)) + np.uint16(118 << 7)


def tuned(
    base: np.ndarray[tuple[int], np.dtype[np.uint16]], generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """The base with a random half of its elements changed."""
    noise = _random(generator, len(base))
    return base ^ (((noise >> np.uint16(1) & np.uint16(3)) + np.uint16(1)) * (noise & np.uint16(1)))


def _random(generator: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return generator.integers(0, 1 << 64, -(-count // 4), np.uint64).view(np.uint16)[:count]


def link_models(folder: Path, names: Sequence[str], models: int) -> list[Path]:
    """``models`` folders with hard links to the files of a few: as many sources, on less disk."""
    linked = []
    for index in range(models):
        source, target = folder / names[index % len(names)], folder / f"linked-{index:02d}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for file in source.iterdir():
            (target / file.name).hardlink_to(file)
        linked.append(target)
    return linked


def make_headers(
    folder: Path, tensors: int, models: int, shards: int, sizes: tuple[int, ...] = EXPERT
) -> None:
    """``base`` and K sub-models of experts, in sparse files that hold nothing but headers."""
    recipe = {"tensors": tensors, "models": models, "shards": shards, "shape": list(sizes)}
    if _is_made(folder, recipe):
        return
    roles = ("gate_proj", "up_proj", "down_proj")
    entries: list[Entry] = [
        (
            f"model.layers.{index // 384}.mlp.experts.{index // 3 % 128}.{roles[index % 3]}.weight",
            _BF16,
            sizes,
        )
        for index in range(tensors)
    ]
    cuts = [tensors * shard // shards for shard in range(shards + 1)]
    groups = [entries[start:stop] for start, stop in pairwise(cuts)]
    keys = [f"model-{number:05d}-of-{shards:05d}.safetensors" for number in range(1, shards + 1)]
    keys = keys if shards > 1 else ["model.safetensors"]
    headers = [build_header(group, _METADATA) for group in groups]
    weight_map = {name: key for key, group in zip(keys, groups, strict=True) for name, _, _ in group}
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    for name in ("base", *model_names(models)):
        _new_model(folder / name, Shape(layers=-(-tensors // 384)))
        for key, group, header in zip(keys, groups, headers, strict=True):
            with open(folder / name / key, "wb") as file:
                file.write(header)
                file.truncate(len(header) + 2 * prod(sizes) * len(group))
        if shards > 1:
            (folder / name / "model.safetensors.index.json").write_text(index)
    _note_made(folder, recipe)


def fill(folder: Path) -> None:
    """Put random values into the files of :func:`make_headers`, unless they are there."""
    marker = folder / "filled"
    if marker.exists():
        return
    for index, file in enumerate(sorted(folder.glob("*/*.safetensors"))):
        generator = np.random.Generator(np.random.SFC64([13, index]))
        with open(file, "r+b") as opened:
            start = 8 + int.from_bytes(opened.read(8), "little")
            opened.seek(start)
            for at in range(start, file.stat().st_size, 2 * _CHUNK):
                count = min(_CHUNK, (file.stat().st_size - at) // 2)
                opened.write(weights(generator, count).data)
    marker.touch()


def write_spec(
    path: Path, models: Sequence[Path], base: Path | None, method: dict[str, object], output: Path | str
) -> Path:
    """Write a merge.yaml and return its path."""
    spec = MergeSpec(models=models, base=base, method=method, output=output)
    path.write_text(spec.to_yaml())
    return path


def _new_model(folder: Path, shape: Shape) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(shape.config(), indent=2) + "\n")


def _is_made(folder: Path, recipe: Mapping[str, object]) -> bool:
    """Whether ``folder`` was made by this recipe, or by one with more sub-models."""
    try:
        found = json.loads((folder / _RECIPE).read_text())
    except FileNotFoundError:
        return False
    return {**found, "models": 0} == {**recipe, "models": 0} and int(found["models"]) >= int(
        str(recipe["models"])
    )


def _note_made(folder: Path, recipe: Mapping[str, object]) -> None:
    (folder / _RECIPE).write_text(json.dumps(recipe) + "\n")


def main() -> None:
    """Make what the options say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=5, help="K, without the base")
    parser.add_argument("--out", type=Path, help=f"default: {DATA.name}/{FULL}, or {DATA.name}/{HEADERS}")
    parser.add_argument("--tensors", type=int, help="make headers of this many tensors instead")
    parser.add_argument("--shards", type=int, default=1, help="files a checkpoint, with --tensors")
    for name, default in asdict(Shape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    options = parser.parse_args()
    if not 1 <= options.models <= MAX_MODELS:
        parser.error(f"--models is 1 to {MAX_MODELS}")
    if options.tensors:
        make_headers(options.out or DATA / HEADERS, options.tensors, options.models, options.shards)
    else:
        shape = Shape(**{name: getattr(options, name) for name in asdict(Shape())})
        make_models(options.out or DATA / FULL, shape, options.models)


if __name__ == "__main__":
    main()
