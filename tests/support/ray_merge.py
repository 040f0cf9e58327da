"""A small merge from S3 to S3 on a cluster, of many parts, and what to do to it in the middle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plait_service.cleaning import find_leftovers, remove_leftovers
from plait_service.cluster.dispatcher import Policy
from plait_service.cluster.executor import RayExecutor
from plait_service.cluster.resources import Resources
from plait_service.driver import Driver, Outcome
from plait_service.events import Events
from tests.e2e.test_cli import PLAIT
from tests.support.checkpoints import Shapes, make_family
from tests.support.merging import budget_for, merge, prepared_of
from tests.support.s3 import Bucket, use
from tests.support.s3_labels import Label
from tests.support.s3_proxy import Choose, S3Proxy

PARTS = 36
# One tensor a shard, and one part: only parts that are not the last of a shard must be of 5 MiB.
SHAPES: Shapes = {f"layers.{index:02}.weight": ("BF16", (256, 257)) for index in range(PARTS)}
SHARD_SIZE = 140_000
OUT = "out"
QUICK = Policy(backoff=0.05, longest_backoff=0.2, silence=2.0, deadline=4.0, unknown=3.0)


@dataclass(frozen=True)
class RayJob:
    """A merge of two models by selection, in one bucket.

    Args:
        expected: the output of the same merge in this process, without Ray.
    """

    bucket: Bucket
    expected: dict[str, bytes] = field(default_factory=dict)

    def spec(self, **changes: Any) -> dict[str, Any]:
        plain = {
            "models": [self.bucket.uri(f"sources/m{index}") for index in range(2)],
            "base": self.bucket.uri("sources/base"),
            "method": {"name": "select", "resample": 2},
            "output": self.bucket.uri(OUT),
            "shard_size": SHARD_SIZE,
            "storage": {"timeout": 5, "patience": 20},
        }
        return {**plain, **changes}

    def by_way_of(self, proxy: S3Proxy, **storage: Any) -> dict[str, Any]:
        """The spec for which all requests, the workers' too, go through a proxy."""
        return self.spec(storage={**self.spec()["storage"], **storage, "endpoint_url": proxy.endpoint})

    def check(self, *, unlisted: bool = False) -> None:
        """The output is what a merge in this process makes, and alone; it is removed.

        Args:
            unlisted: a driver may have died before it could say which uploads it began: `plait clean` knows.
        """
        found = self.bucket.download(OUT)
        assert sorted(found) == sorted(self.expected)
        assert [key for key in found if found[key] != self.expected[key]] == []
        if unlisted:
            left = find_leftovers(self.bucket.uri(OUT))
            remove_leftovers(left, [upload.id for upload in left.unlisted])
        assert not self.bucket.pending()
        self.clear()

    def clear(self) -> None:
        for key, number in self.bucket.pending(f"{OUT}/"):
            self.bucket.abort(key, number)
        for key in self.bucket.etags(f"{OUT}/"):
            self.bucket.delete(key)

    def journalled(self) -> int:
        """Parts on record at the output."""
        journals = [key for key in self.bucket.etags(f"{OUT}/.plait/") if "journal-" in key]
        return sum(len(json.loads(self.bucket.get(key))) for key in journals)


def make_ray_job(bucket: Bucket, folder: Path) -> RayJob:
    """Upload the sources, and merge them once without Ray."""
    make_family(folder, SHAPES, models=2)
    for name in ("base", "m0", "m1"):
        bucket.upload(folder / name, f"sources/{name}")
    job = RayJob(bucket)
    with pytest.MonkeyPatch.context() as environment:
        use(bucket.access, environment)
        merge(job.spec())
    job = RayJob(bucket, bucket.download(OUT))
    job.clear()
    return job


class Watched:
    """A merge on the cluster that this process is a driver of, and its events.

    Args:
        on_event: told each, in the thread that it happens in.
        patience: seconds without any worker.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        policy: Policy = QUICK,
        resources: Resources | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda _event: None,
        patience: float = 120.0,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.stop = threading.Event()
        self._on_event = on_event
        self._prepared = prepared_of(spec)
        self._told = Events(self._prepared.plan.job.fingerprint, self._note)
        self.executor = RayExecutor(
            self._prepared, resources or Resources(), events=self._told, policy=policy, patience=patience
        )

    def _note(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self._on_event(event)

    def run(self) -> Outcome:
        """To its end."""
        driver = Driver(
            self._prepared,
            budget_for(self._prepared),
            executor=self.executor,
            events=self._told,
            stop=self.stop,
        )
        try:
            return driver.run()
        finally:
            self.executor.close()

    @property
    def fingerprint(self) -> str:
        return self._prepared.plan.job.fingerprint

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]

    def workers(self) -> dict[str, int]:
        """Process ids of workers by node, the last of each."""
        return {event["node"]: event["pid"] for event in self.events if event["kind"] == "node-joined"}

    def slots(self) -> int:
        """Units that the workers do side by side."""
        return sum(event["slots"] for event in self.events if event["kind"] == "node-joined")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone already does not mind."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


class AtPart:
    """Does something as a part arrives at the server: the third, say, before its sender is told.

    Args:
        number: which part, counted from 1, of those that arrive.
        do: what.
    """

    def __init__(self, number: int, do: Callable[[], None], *, pause: float = 0.0) -> None:
        self._number = number
        self._do = do
        self._pause = pause
        self._lock = threading.Lock()
        self.parts = 0

    def __call__(self, label: Label) -> None:
        if label.operation != "UploadPart" or ".plait/" in label.key:
            return
        time.sleep(self._pause)  # so that there is a middle
        with self._lock:
            self.parts += 1
            if self.parts == self._number:
                self._do()


@contextmanager
def proxied(
    job: RayJob,
    after: Callable[[Label], None] = lambda _label: None,
    choose: Choose = lambda _label: None,
    listening: socket.socket | None = None,
) -> Iterator[S3Proxy]:
    with S3Proxy(job.bucket.access, choose, after, listening) as proxy:
        yield proxy


def start_plait(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The command, on its way."""
    return subprocess.Popen(
        [str(PLAIT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def events_of(stderr: str) -> list[dict[str, Any]]:
    """What the command said on standard error: lines of JSON, and nothing else."""
    return [json.loads(line) for line in stderr.splitlines()]
