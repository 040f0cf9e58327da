"""An S3 server that costs next to nothing, to see what a client costs.

with NullServer(Path("benchmarks/data/half")) as server:     # the folder is bucket `models`
    subprocess.run(["plait", "merge", "spec.yaml"], env=os.environ | server.environment)
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_SERVER = Path(__file__).with_name("null_http.py")


def environment_of(endpoint: str) -> dict[str, str]:
    """The variables that every AWS client reads."""
    return {
        "AWS_ACCESS_KEY_ID": "null",
        "AWS_SECRET_ACCESS_KEY": "null",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class NullServer:
    """The server as a process of its own, from here to the end of a ``with`` block.

    Args:
        root: the folder that is bucket ``models``.
        address: where it listens; by default the loopback, on a free port.
        start: starts its process, perhaps on another host.
    """

    def __init__(
        self,
        root: Path,
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        start: Callable[[list[str]], subprocess.Popen[str]] = _start,
    ) -> None:
        host, port = address
        self._process = start([sys.executable, str(_SERVER), str(root), host, str(port)])
        assert self._process.stdout is not None
        self.endpoint = f"http://{host}:{int(self._process.stdout.readline())}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every AWS client reads."""
        return environment_of(self.endpoint)

    @property
    def pid(self) -> int:
        """Of the server's process."""
        return self._process.pid

    def counts(self) -> Counter[str]:
        """Requests so far, by operation; bytes sent and received."""
        with urllib.request.urlopen(f"{self.endpoint}/-/counts") as answer:
            return Counter(json.load(answer))

    def forget(self) -> None:
        """Forget all that was written."""
        urllib.request.urlopen(f"{self.endpoint}/-/forget").close()

    def __enter__(self) -> NullServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
