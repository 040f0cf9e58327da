"""Long: a node's network card goes down in the middle of a merge, and stays so or comes back."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.test_cli import PLAIT
from tests.support.fault_table import CLUSTER, RecordProperty, note
from tests.support.network import Host, Network, can_make_networks
from tests.support.ray_hosts import RayHosts
from tests.support.ray_merge import PARTS, AtPart, RayJob, events_of, proxied

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_make_networks(), reason="network namespaces need root and iproute2"),
]

PAUSE = 2.5
"""Seconds that each part takes at least: the merge outlasts the silence."""


class Cut:
    """Takes a node's cable out, and puts it in again after a while."""

    def __init__(self, host: Host, seconds: float | None) -> None:
        self._host = host
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def __call__(self) -> None:
        self._host.cut()
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self._host.mend)
            self._timer.start()

    def end(self) -> None:
        """Wait until the cable is in again, if it is to be."""
        if self._timer is not None:
            self._timer.join()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.mark.parametrize(
    ("seconds", "notices"),
    [(None, True), (4, False), (15, True)],
    ids=["for good", "for a moment", "until the node counts as gone"],
)
def test_card_down(
    ray_job: RayJob, network: Network, record_property: RecordProperty, seconds: float | None, notices: bool
) -> None:
    """The others do what it had, and a late answer of its changes nothing."""
    server = network.add_host("s3")
    hosts = RayHosts(network, ray_job.bucket.access.environment)
    try:
        hosts.add_nodes(2)
        cut = Cut(hosts.nodes["node-1"], seconds)
        with proxied(ray_job, AtPart(PARTS // 3, cut, pause=PAUSE), listening=server.listen()) as proxy:
            spec = json.dumps(ray_job.by_way_of(proxy))
            arguments = ("merge", spec, "--address", hosts.address, "--json", "--log-json")
            process = subprocess.Popen(
                hosts.head.inside([PLAIT, *arguments]),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | hosts.environment,
            )
            out, errors = process.communicate(timeout=300)
            cut.end()
        assert process.returncode == 0, errors
        assert json.loads(out)["parts_merged"] == PARTS
        kinds = [event["kind"] for event in events_of(errors)]
        assert ("worker-silent" in kinds or "node-lost" in kinds) == notices, kinds
    finally:
        hosts.close()
    ray_job.check()
    what = "for good" if seconds is None else f"for {seconds} s"
    note(record_property, [(f"card down {what}", "same bytes")], title=CLUSTER)
