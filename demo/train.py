"""Train the demo's models: one small base, and K fine-tunes that differ only in the order of their data.

The text is the Python documentation that every Python carries (`pydoc_data.topics`). Most topics train
the base; a few make up the fine-tuning set, of which one chunk in five is held out. Every fine-tune
starts from the same base and sees the same chunks equally often: only the order differs.

    python demo/train.py OUTDIR        # base/ and order-0/ ... order-4/, as Hugging Face checkpoints
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

# Both are read once, when the libraries below are loaded.
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
os.environ["OMP_WAIT_POLICY"] = "passive"  # a waiting thread sleeps: spinning crawls on a busy machine

import torch
import transformers
from torch import Tensor
from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

NUM_ORDERS = 5
FINE_TUNING_TOPICS = ("string-methods", "formatstrings", "debugger")
CHUNK_LEN = 128
BATCH_SIZE = 4
MAX_SHARD_SIZE = "400KB"

BASE_STEPS = 700
BASE_LR = 2.5e-3
FINE_TUNE_EPOCHS = 2
FINE_TUNE_LR = 1e-3  # high, and constant after the warm-up: the last samples seen leave their mark

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)


@dataclass(frozen=True)
class Corpus:
    """Token ids: one long stream to train the base, and chunks of CHUNK_LEN to fine-tune and to measure."""

    base: Tensor  # [num_tokens]
    fine_tuning: Tensor  # [num_chunks, CHUNK_LEN]
    held_out: Tensor  # [num_chunks, CHUNK_LEN]


def load_corpus() -> Corpus:
    """Split the topics. A paragraph that several share is kept once: nothing held out is trained on."""
    names = [*FINE_TUNING_TOPICS, *sorted(set(topics) - set(FINE_TUNING_TOPICS))]
    seen: set[str] = set()
    texts: dict[str, str] = {}
    for name in names:
        new = [p for p in dict.fromkeys(topics[name].split("\n\n")) if p not in seen]
        seen.update(new)
        texts[name] = "\n\n".join(new)
    stream = encode("\n\n".join(texts[name] for name in FINE_TUNING_TOPICS))
    chunks = stream[: len(stream) // CHUNK_LEN * CHUNK_LEN].view(-1, CHUNK_LEN)
    held_out = torch.arange(len(chunks)) % 5 == 4
    return Corpus(
        base=encode("\n\n".join(texts[name] for name in names[len(FINE_TUNING_TOPICS) :])),
        fine_tuning=chunks[~held_out],
        held_out=chunks[held_out],
    )


def encode(text: str) -> Tensor:
    """Map text to ByT5's ids: a byte's value plus 3, after pad, eos and unk."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() + 3


def new_model() -> LlamaForCausalLM:
    """Make a Llama of 0.66 million parameters."""
    config = LlamaConfig(
        vocab_size=384,  # ByT5's: 3 special ids, 256 bytes, 125 ids that nothing uses
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.07,  # about 1 / sqrt(hidden_size): learns far sooner than the usual 0.02
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def base_batches(stream: Tensor, *, seed: int) -> Iterator[Tensor]:
    """Yield BASE_STEPS batches of windows drawn from anywhere in the stream."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(BASE_STEPS):
        starts = torch.randint(len(stream) - CHUNK_LEN, (BATCH_SIZE,), generator=generator)
        yield stream[starts[:, None] + torch.arange(CHUNK_LEN)]


def ordered_batches(chunks: Tensor, *, seed: int) -> Iterator[Tensor]:
    """Yield every chunk once an epoch, in an order of this seed and another in each epoch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(FINE_TUNE_EPOCHS):
        order = torch.randperm(len(chunks), generator=generator)
        for batch in order.split(BATCH_SIZE):
            yield chunks[batch]


def train(model: LlamaForCausalLM, batches: list[Tensor], *, lr: float, warmup: int, decay: bool) -> None:
    """Take one AdamW step a batch; the rate warms up, then is constant or decays linearly to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    model.train()
    for step, batch in enumerate(batches):
        scale = min(1.0, (step + 1) / warmup)
        if decay:
            scale *= 1 - step / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 300 == 0:
            print(f"  step {step + 1} of {len(batches)}: loss {loss.item():.3f}", flush=True)


def train_base(corpus: Corpus, folder: Path) -> None:
    """Train the base from scratch and save it."""
    torch.manual_seed(0)
    model = new_model()
    train(model, list(base_batches(corpus.base, seed=0)), lr=BASE_LR, warmup=20, decay=True)
    save(model, folder)


def fine_tune(corpus: Corpus, base: Path, folder: Path, *, order: int) -> None:
    """Train a copy of the base on the fine-tuning chunks in this order and save it."""
    model = load(base)
    batches = list(ordered_batches(corpus.fine_tuning, seed=order))
    train(model, batches, lr=FINE_TUNE_LR, warmup=10, decay=False)
    save(model, folder)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write a sharded bf16 checkpoint with its index and tokenizer. The model is bf16 afterwards."""
    model.to(dtype=torch.bfloat16).save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
    ByT5Tokenizer().save_pretrained(folder)


def load(folder: Path) -> LlamaForCausalLM:
    """Load a checkpoint in float32: quicker on a CPU, and the values are exactly those in the files."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.inference_mode()
def mean_loss(folder: Path, chunks: Tensor) -> float:
    """Load a checkpoint; return its mean cross-entropy over the chunks, in nats a byte."""
    model = load(folder).eval()
    losses = [
        model(input_ids=batch, labels=batch, use_cache=False).loss.item() * len(batch)
        for batch in chunks.split(32)
    ]
    return float(sum(losses)) / len(chunks)


def main(out: Path) -> None:
    """Train everything and print each model's loss on the held-out chunks."""
    corpus = load_corpus()
    print(f"{len(corpus.base)} bytes to train the base, {len(corpus.fine_tuning)} chunks to fine-tune on")
    for name in ["base", *(f"order-{i}" for i in range(NUM_ORDERS))]:
        start = time.perf_counter()
        if name == "base":
            train_base(corpus, out / name)
        else:
            fine_tune(corpus, out / "base", out / name, order=int(name.removeprefix("order-")))
        seconds = time.perf_counter() - start
        print(f"{name}: {seconds:.1f} s, held-out loss {mean_loss(out / name, corpus.held_out):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
