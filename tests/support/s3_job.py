"""A small merge from S3 to S3 that is made to go wrong, and what has to hold after that."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.loaders import create_loader

from plait.errors import PlaitError
from plait_service.cleaning import Leftovers, find_leftovers, remove_leftovers
from plait_service.existing import MANIFEST, PRIVATE
from plait_workers.storage.s3 import connection
from tests.support.checkpoints import Shapes, make_family
from tests.support.merging import merge
from tests.support.s3 import Bucket, use
from tests.support.s3_faults import Fault, Kind, Traffic, kinds_for
from tests.support.s3_labels import Label
from tests.support.s3_proxy import Choose, S3Proxy, injecting

# Two shards, the first of two parts: 5 MiB is the least that S3 takes for a part that is not the last.
SHAPES: Shapes = {"odd": ("U8", (33,)), "a": ("BF16", (1311, 2001)), "b": ("F32", (20_001,))}
SHARD_SIZE = 5_300_000
OUT = "out"
PATIENCE = 20
SILENCE = 0.5
IDENTICAL = "identical"

_LOST_CREATE = {
    *(Kind.INTERNAL_AFTER, Kind.RESET_AFTER, Kind.TIMEOUT_AFTER),
    *(Kind.STALL, Kind.TRUNCATED),
}


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less between two tries, and read the descriptions of AWS's services once, not for each client."""
    loader, make = create_loader(), botocore.session.get_session

    def get_session(*args: Any, **kwargs: Any) -> Any:
        session = make(*args, **kwargs)
        session.register_component("data_loader", loader)
        return session

    monkeypatch.setattr(botocore.session, "get_session", get_session)
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.01)


@dataclass(frozen=True)
class Result:
    """How a disturbed merge ended: ``identical``, or the kind of its error; and what went wrong."""

    faults: tuple[Fault, ...]
    outcome: str
    message: str = ""
    struck: int = 0


@dataclass(frozen=True)
class ReferenceJob:
    """A merge of three models by selection, in one bucket.

    Args:
        bystander: key and id of an upload of somebody else.
        expected: the output of a merge that nothing disturbs.
        traffic: the requests of that merge.
    """

    bucket: Bucket
    bystander: tuple[str, str]
    sources: dict[str, str]
    expected: dict[str, bytes] = field(default_factory=dict)
    traffic: dict[Label, Traffic] = field(default_factory=dict)

    def spec(self, **changes: Any) -> dict[str, Any]:
        """Its output is always the same, as that is part of a result's bytes; the endpoint is not in it."""
        plain = {
            "models": [self.bucket.uri(f"sources/m{index}") for index in range(3)],
            "base": self.bucket.uri("sources/base"),
            "method": {"name": "select", "resample": 2},
            "output": self.bucket.uri(OUT),
            "shard_size": SHARD_SIZE,
            "part_size": "5MiB",
            "storage": {"timeout": SILENCE, "patience": PATIENCE},
        }
        return {**plain, **changes}

    def faults(self) -> list[Fault]:
        """Every call with everything that can befall it."""
        return [
            Fault(label, kind)
            for label, passed in sorted(self.traffic.items(), key=lambda item: item[0])
            for kind in kinds_for(label, passed)
        ]

    @contextmanager
    def by_proxy(
        self, choose: Choose = lambda _label: None, after: Callable[[Label], None] = lambda _label: None
    ) -> Iterator[S3Proxy]:
        """All requests of this process go through a proxy, at the environment's word."""
        with (
            S3Proxy(self.bucket.access, choose, after) as proxy,
            pytest.MonkeyPatch.context() as environment,
        ):
            use(self.bucket.access, environment, proxy.endpoint)
            yield proxy

    def run(self, **driver: Any) -> S3Proxy:
        """Merge by way of a proxy, which is returned."""
        with self.by_proxy() as proxy:
            merge(self.spec(), **driver)
        return proxy

    def try_with(self, faults: Sequence[Fault], *, clean: bool = False, **driver: Any) -> Result:
        """Merge while this goes wrong, and look at all that must hold afterwards.

        The bytes are those of an undisturbed merge, or there is no model, and the merge can be done
        again, with or without ``plait clean`` between. Nothing stays pending but what nobody can know
        of: uploads whose creation was not answered. Sources and others' uploads are as they were.
        """
        try:
            return self._try_with(faults, clean, driver)
        finally:
            self.clear()

    def _try_with(self, faults: Sequence[Fault], clean: bool, driver: Mapping[str, Any]) -> Result:
        result = Result(tuple(faults), IDENTICAL)
        with self.by_proxy(injecting(faults)) as proxy:
            try:
                merge(self.spec(), **driver)
            except PlaitError as error:
                result = replace(result, outcome=error.kind, message=str(error))
        result = replace(result, struck=len(proxy.struck))
        lost = sum(kind in _LOST_CREATE for label, kind in proxy.struck if "CreateMulti" in label.operation)
        if result.outcome != IDENTICAL:
            assert MANIFEST not in self.visible(), result
            if clean:
                self.clean()
                assert self.bucket.pending() == {self.bystander}, result
            self.run()
        self.check(lost)
        return result

    def clean(self) -> Leftovers:
        """What ``plait clean`` finds at the output, and removes: uploads that nobody lists by their ids."""
        with self.by_proxy():
            found = find_leftovers(self.bucket.uri(OUT))
            remove_leftovers(found, [upload.id for upload in found.unlisted])
        return found

    def visible(self) -> list[str]:
        """What a reader sees of the output."""
        keys = (key.removeprefix(f"{OUT}/") for key in self.bucket.etags(f"{OUT}/"))
        return [key for key in keys if not key.startswith(PRIVATE)]

    def check(self, lost_uploads: int = 0) -> None:
        """The output is whole and alone; nobody else's things changed. It is removed."""
        found = self.bucket.download(OUT)
        assert sorted(found) == sorted(self.expected)
        assert [key for key in found if found[key] != self.expected[key]] == []
        ours = self.bucket.pending() - {self.bystander}
        assert len(ours) <= lost_uploads, ours
        if ours:
            left = self.clean()
            told = (*left.unlisted, *left.ours)
            assert {(f"{OUT}/{upload.key}", upload.id) for upload in told} == ours
            assert all(upload.key.startswith(PRIVATE) for upload in left.ours)
            assert self.bucket.download(OUT) == found
        assert self.bucket.pending() == {self.bystander}
        assert self.bucket.etags("sources/") == self.sources

    def clear(self) -> None:
        """Remove the output, and what is pending below it."""
        for key, number in self.bucket.pending(f"{OUT}/"):
            self.bucket.abort(key, number)
        for key in self.bucket.etags(f"{OUT}/"):
            self.bucket.delete(key)


def make_job(bucket: Bucket, folder: Path) -> ReferenceJob:
    """Upload the sources, and merge undisturbed: what it asks for is what it asks for twice.

    On a busy machine the server may be slow enough for a request to be made again.
    """
    make_family(folder, SHAPES)
    for name in ("base", "m0", "m1", "m2"):
        bucket.upload(folder / name, f"sources/{name}")
    number = bucket.begin_upload("sources/begun-by-another")
    job = ReferenceJob(bucket, ("sources/begun-by-another", number), bucket.etags("sources/"))
    job.run()  # opens connections
    job = replace(job, expected=bucket.download(OUT))
    job.clear()
    seen = []
    for _ in range(2):
        seen.append(job.run().traffic)
        job.check()
        job.clear()
    return replace(job, traffic={label: seen[0][label] for label in seen[0].keys() & seen[1].keys()})


def share(faults: Iterable[Fault], number: int, count: int) -> list[Fault]:
    """The faults of share ``number`` of ``count``; which one a fault is in depends on nothing else."""
    return [fault for fault in faults if zlib.crc32(str(fault).encode()) % count == number]


def grouped(faults: Iterable[Fault], size: int) -> list[list[Fault]]:
    """Groups of faults that do not meet: of different calls, not of one call's repetitions."""
    groups: list[list[Fault]] = []
    ordered = sorted(faults, key=lambda fault: zlib.crc32(f"order/{fault}".encode()))
    for fault in ordered:
        place = replace(fault.label, count=1)
        for group in groups:
            if len(group) < size and all(replace(other.label, count=1) != place for other in group):
                group.append(fault)
                break
        else:
            groups.append([fault])
    return groups
