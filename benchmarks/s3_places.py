"""Checkpoints on a server, merges there in this process, and what is removed between two."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from checkpoints import SMALL, TINY, make_models, model_names, write_spec
from common import HERE, note
from merge import merge_once
from null_objects import SOURCES
from null_server import NullServer
from s3_bare import Moving

from plait.spec import MergeSpec, load_spec
from plait_service.budget import Budget, budget_of, default_memory, default_threads
from plait_service.driver import Driver
from plait_service.prepare import Prepared, prepare
from plait_workers.methods import METHODS

sys.path.append(str(HERE.parent / "demo"))

from weed import Weed

OUT = "out"
SELECT: dict[str, object] = {"name": "select", "resample": 4}
_PART = 64 << 20
_IDLE = 5.0
"""Percent of one processor."""
_MOST_SETTLING = 20.0

Server = NullServer | Weed


@dataclass(kw_only=True)
class Cost:
    """What one run took: seconds, processor time of both sides, requests as the server counts them."""

    seconds: float = 0.0
    client: float = 0.0
    server: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def cpu(self) -> float:
        """Of both sides."""
        return self.client + self.server


class Meter:
    """Reads clocks and counters of this process and the server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._process = psutil.Process(server.pid)
        self._last = self._read()

    def _read(self) -> Cost:
        used = self._process.cpu_times()
        counts = self._server.counts() if isinstance(self._server, NullServer) else Counter[str]()
        return Cost(
            seconds=time.perf_counter(),
            client=time.process_time(),
            server=used.user + used.system,
            requests=counts,
        )

    def lap(self) -> Cost:
        """Since the last lap, or since this was made."""
        before, self._last = self._last, self._read()
        return Cost(
            seconds=self._last.seconds - before.seconds,
            client=self._last.client - before.client,
            server=self._last.server - before.server,
            requests=self._last.requests - before.requests,
        )


@dataclass(kw_only=True)
class Merged:
    """A merge in this process by its phases: headers and plan, units, all else."""

    prepared: Prepared
    planning: Cost
    units: Cost
    rest: Cost

    @property
    def seconds(self) -> float:
        """Of all."""
        return self.planning.seconds + self.units.seconds + self.rest.seconds

    @property
    def cpu(self) -> float:
        """Of all, both sides."""
        return self.planning.cpu + self.units.cpu + self.rest.cpu


def spec_of(names: Sequence[str], **more: Any) -> str:
    """A merge.yaml of these folders of the bucket with sources, and ``base``; into the other bucket."""
    models = [f"s3://{SOURCES}/{name}" for name in names]
    spec = MergeSpec(
        models=models, base=f"s3://{SOURCES}/base", method=SELECT, output=f"s3://{OUT}/merged", **more
    )
    return spec.to_yaml()


def plan(text: str) -> tuple[Prepared, Budget]:
    """From a spec to a plan, and what `plait merge` would use by default."""
    prepared = prepare(load_spec(text, methods=METHODS))
    threads = default_threads(remote=prepared.is_remote)
    return prepared, budget_of(prepared.plan.job, prepared.output, memory=default_memory(), threads=threads)


def merge(server: Server, text: str) -> Merged:
    """Plan and merge in this process."""
    meter, rest, units = Meter(server), list[Cost](), Cost()
    prepared, budget = plan(text)
    planning = meter.lap()

    def on_step(name: str) -> None:
        nonlocal units
        if name == "units":
            rest.append(meter.lap())
        elif name == "sources":
            units = meter.lap()

    Driver(prepared, budget, on_step=on_step).run()
    rest.append(meter.lap())
    total = Cost()
    for each in rest:
        total.seconds += each.seconds
        total.client += each.client
        total.server += each.server
        total.requests += each.requests
    return Merged(prepared=prepared, planning=planning, units=units, rest=total)


def move(server: Server, text: str) -> Cost:
    """The same bytes and no merge; planning is no part of it."""
    moving = Moving(*plan(text))
    meter = Meter(server)
    moving.run()
    return meter.lap()


def bring(server: Weed, folder: Path, names: Sequence[str]) -> None:
    """Put checkpoints into the bucket with sources, with checksums as AWS keeps them of new objects."""
    client: Any = server.client()
    for bucket in (SOURCES, OUT):
        client.create_bucket(Bucket=bucket)
    files = [file for name in names for file in sorted((folder / name).iterdir())]
    note(f"bringing {len(files)} files to the server")
    for file in files:
        _send(client, file, file.relative_to(folder).as_posix())


def _send(client: Any, file: Path, key: str) -> None:
    place = {"Bucket": SOURCES, "Key": key}
    with open(file, "rb") as source:
        if file.stat().st_size <= _PART:
            client.put_object(**place, Body=source.read(), ChecksumAlgorithm="CRC64NVME")
            return
        upload = client.create_multipart_upload(
            **place, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
        )["UploadId"]
        parts: list[dict[str, object]] = []
        while data := source.read(_PART):
            number = len(parts) + 1
            answer = client.upload_part(
                **place, UploadId=upload, PartNumber=number, Body=data, ChecksumAlgorithm="CRC64NVME"
            )
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})


def clear(server: Server) -> None:
    """Remove outputs, write dirty pages, and let the server do what it does of itself afterwards."""
    if isinstance(server, NullServer):
        server.forget()
        return
    client: Any = server.client()
    for item in client.list_objects_v2(Bucket=OUT).get("Contents", ()):
        client.delete_object(Bucket=OUT, Key=item["Key"])
    os.sync()
    process = psutil.Process(server.pid)
    process.cpu_percent()
    ends = time.perf_counter() + _MOST_SETTLING
    while time.perf_counter() < ends:
        time.sleep(0.5)
        if process.cpu_percent() < _IDLE:
            return
    note("the server is still busy with itself")


def use(server: Server) -> None:
    """Speak to this server from now on."""
    os.environ.update(server.environment)


def warm_up(folder: Path, models: int) -> None:
    """Load kernels and what a merge imports, with a local merge of a megabyte."""
    make_models(folder / TINY, SMALL, models)
    with tempfile.TemporaryDirectory() as place:
        sources = [folder / TINY / name for name in model_names(models)]
        base = folder / TINY / "base"
        merge_once(write_spec(Path(place) / "merge.yaml", sources, base, SELECT, Path(place) / "merged"))


def with_weed(folder: Path, run: Callable[[Weed], None]) -> None:
    """Run something with a server of its own, whose folder is removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with Weed(folder) as server:
            use(server)
            run(server)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
