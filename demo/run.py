"""The whole story on a laptop: fine-tune one model in five orders, merge, and see what merging is worth.

Trains with demo/train.py (transformers, as it comes), puts the checkpoints into a bucket of an S3 server
that runs on this machine (demo/weed.py), merges from bucket to bucket on a Ray cluster of this machine with
the `plait` command (as anyone would type it), kills a worker in the middle of a merge, and measures each
model on the same held-out text. Nothing is fetched; all files stay in demo/run/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
from textwrap import indent
from typing import Any

import train
import weed
from killing import merge_and_kill
from rich.console import Console
from rich.table import Table

RUN = Path(__file__).resolve().parent / "run"
PLAIT = Path(sys.executable).parent / "plait"
BUCKET = "demo"

SPEC = """\
models:
  - {{glob: "s3://demo/order-*"}}
base: s3://demo/base
method:
{method}
output: s3://demo/{output}
seed: 0
shard_size: 400KB
"""
# The cluster's workers, as a spec's user would ask for them.
WORKERS = ("--workers", "2", "--worker-cpus", "1")
# The name of a spec and of what it makes -> its method.
METHODS = {
    "merged-select": "  name: select\n  resample: 4",
    "merged-select-n0": "  name: select\n  resample: 0",
    "merged-average": "  name: average",
}

console = Console(highlight=False)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print a heading, then how long the step took."""
    console.print(f"\n[bold]{title}[/bold]", soft_wrap=True)
    start = time.perf_counter()
    yield
    console.print(f"[dim]{time.perf_counter() - start:.1f} s[/dim]")


def write_spec(name: str) -> str:
    """Write NAME.yaml, the merge that makes NAME, and return its text."""
    text = SPEC.format(method=METHODS[name], output=name)
    (RUN / f"{name}.yaml").write_text(text)
    return text


def plait(*args: str, quiet: bool = False) -> None:
    """Run the command in RUN, where the specs are; end the demo if it fails."""
    console.print(f"$ plait {' '.join(args)}", style="cyan")
    sys.stdout.flush()
    done = subprocess.run([PLAIT, *args], cwd=RUN, capture_output=quiet, text=True, check=False)
    if done.returncode != 0:
        if quiet:
            sys.stderr.write(done.stderr)
        raise SystemExit(f"the demo stops: plait {args[0]} ended with status {done.returncode}")


def train_models(corpus: train.Corpus) -> list[str]:
    """Train the base and its fine-tunes into RUN; return the fine-tunes' names."""
    with step(
        f"A base model: {train.BASE_STEPS} steps on {len(corpus.base) // 1000} kB of Python's documentation"
    ):
        train.train_base(corpus, RUN / "base")
    names = [f"order-{order}" for order in range(train.NUM_ORDERS)]
    chunks = f"{len(corpus.fine_tuning)} chunks of other topics, {train.FINE_TUNE_EPOCHS} epochs"
    with step(f"Fine-tunes of it, which differ only in the order of the data: {chunks}"):
        for order, name in enumerate(names):
            start = time.perf_counter()
            train.fine_tune(corpus, RUN / "base", RUN / name, order=order)
            console.print(f"  {name}: {time.perf_counter() - start:.1f} s")
    shards = sorted((RUN / names[0]).glob("*.safetensors"))
    console.print(f"Each is a Hugging Face checkpoint: bf16, {len(shards)} shards and their index.")
    return names


def fill_bucket(server: weed.Weed, names: list[str]) -> None:
    """Put the checkpoints into the bucket, and name the server to every AWS client of this process."""
    with step(f"The checkpoints go into s3://{BUCKET}, on an S3 server of this machine"):
        os.environ.update(server.environment)
        client = server.access.client()
        client.create_bucket(Bucket=BUCKET)
        for path in sorted(path for name in names for path in (RUN / name).iterdir()):
            client.put_object(Bucket=BUCKET, Key=f"{path.parent.name}/{path.name}", Body=path.read_bytes())
        console.print(f"{server.endpoint}: {', '.join(names)}")


def keys(client: Any, model: str) -> list[str]:
    """The names of a model's files in the bucket."""
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{model}/")["Contents"]
    return [item["Key"].removeprefix(f"{model}/") for item in listed]


def fetch(server: weed.Weed, model: str) -> None:
    """Copy a model out of the bucket, as whoever serves it would."""
    client, folder = server.access.client(), RUN / model
    folder.mkdir()
    for name in keys(client, model):
        body = client.get_object(Bucket=BUCKET, Key=f"{model}/{name}")["Body"]
        (folder / name).write_bytes(body.read())


def merge_models(address: str) -> None:
    """Merge the fine-tunes with each of METHODS, on the cluster."""
    on_cluster = ("--address", address, *WORKERS)
    with step("Merge by selection: each parameter is one fine-tune's, drawn at random"):
        print(indent(write_spec("merged-select"), "    "))
        plait("plan", "merged-select.yaml")
        plait("merge", "merged-select.yaml", *on_cluster)
    with step("Merge by averaging"):
        print(indent(write_spec("merged-average"), "    "))
        plait("merge", "merged-average.yaml", *on_cluster)
    with step("Selection without resampling, to compare (its output is not shown)"):
        write_spec("merged-select-n0")
        plait("merge", "merged-select-n0.yaml", *on_cluster, quiet=True)


def kill_a_worker(server: weed.Weed, address: str) -> None:
    """The first merge once more, to another place, and a worker killed in its middle: the same files."""
    with step("The same selection again, into s3://demo/killed, and a worker killed in the middle"):
        command = ("merge", "merged-select.yaml", "--set", "output=s3://demo/killed", "--address", address)
        console.print(f"$ plait {' '.join((*command, *WORKERS))}", style="cyan")
        for line in merge_and_kill([str(PLAIT), *command, *WORKERS], folder=RUN):
            console.print(f"  {line}", soft_wrap=True)
        client = server.access.client()
        compared = [name for name in keys(client, "merged-select") if name.endswith(".safetensors")]
        for name in compared:
            bodies = [
                client.get_object(Bucket=BUCKET, Key=f"{model}/{name}")["Body"].read()
                for model in ("merged-select", "killed")
            ]
            if bodies[0] != bodies[1]:
                raise SystemExit(f"the demo stops: {name} differs after a worker was killed")
        console.print(f"  {len(compared)} shards, each the same to the bit as without the kill")


def report(fine_tunes: list[str], corpus: train.Corpus) -> None:
    """Load every model from its files and print its loss on text that none was trained on."""
    with step(f"The loss of each on {len(corpus.held_out)} held-out chunks of the fine-tuning topics"):
        loss = {
            name: train.mean_loss(RUN / name, corpus.held_out) for name in ["base", *fine_tunes, *METHODS]
        }
        fine_tuned = mean(loss[name] for name in fine_tunes)
        table = Table("model", "made by")
        table.add_column("loss, nats a byte", justify="right")
        table.add_column("against the mean", justify="right")
        table.add_row("base", "", f"{loss['base']:.4f}", "", end_section=True)
        for name in fine_tunes:
            table.add_row(name, "fine-tuning", f"{loss[name]:.4f}", f"{loss[name] - fine_tuned:+.4f}")
        table.add_row("[bold]their mean", "", f"[bold]{fine_tuned:.4f}", "", end_section=True)
        for name, made_by in [
            ("merged-average", "average"),
            ("merged-select-n0", "select, resample 0"),
            ("merged-select", "select, resample 4"),
        ]:
            table.add_row(name, made_by, f"[bold]{loss[name]:.4f}", f"{loss[name] - fine_tuned:+.4f}")
        console.print(table)


@contextmanager
def cluster() -> Iterator[str]:
    """A Ray cluster of this machine alone, for the length of the block; its address."""
    from plait_service.cluster.connect import LOCAL, joined

    with step("A Ray cluster of this machine"):
        stack = ExitStack()
        stack.enter_context(joined(LOCAL))
        import ray

        address = str(ray.get_runtime_context().gcs_address)
        console.print(f"{address}, {int(ray.cluster_resources()['CPU'])} processors")
    with stack:
        yield address


def main() -> None:
    """Run the demo from an empty folder."""
    start = time.perf_counter()
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir()
    corpus = train.load_corpus()
    fine_tunes = train_models(corpus)
    with weed.Weed(RUN / "s3") as server:
        fill_bucket(server, ["base", *fine_tunes])
        with cluster() as address:
            merge_models(address)
            kill_a_worker(server, address)
        for name in METHODS:
            fetch(server, name)
    report(fine_tunes, corpus)

    console.print(
        "\nThe merged model opens with transformers' from_pretrained:", RUN / "merged-select", soft_wrap=True
    )
    console.print(f"[dim]All of it took {time.perf_counter() - start:.0f} s.[/dim]")


if __name__ == "__main__":
    main()
