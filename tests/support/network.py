"""Hosts on this machine: network namespaces behind one switch, each with a card that may be limited.

with Network() as network:
    server, node = network.add_host("s3"), network.add_host("node-0", rate=20 * MBIT)
    node.start([PYTHON, "-c", f"import urllib.request; urllib.request.urlopen('http://{server.address}/')"])

All of it lies in namespaces of its own, the switch too: nothing of the machine's own network is touched, and
at the end of the block all processes in them are killed and nothing is left. Needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

MBIT = 10**6
"""Bits a second."""
FRAME, PAYLOAD = 1514, 1448
"""Bytes of a full TCP segment as a card's limit counts them, and what of it is data."""
BURST = 64 << 10
"""Bytes that pass a card at once: no less than what the kernel hands over as one packet."""
QUEUE_MS = 200
"""How long a packet may wait for the card; what would wait longer is dropped."""
_NAMESPACES = Path("/run/netns")
_GONE_WITHIN = 10.0
_CLONE_NEWNET = 0x40000000


class Host:
    """A network namespace with one card. Processes in it see nothing of the others but their addresses."""

    def __init__(self, name: str, address: str, switch: str, port: str) -> None:
        self.address = address
        self._name = name
        self._switch = switch
        self._port = port

    def inside(self, command: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command that runs another one here."""
        return ["nsenter", f"--net={_NAMESPACES / self._name}", *map(str, command)]

    def listen(self) -> socket.socket:
        """A listening socket on a free port here, for a server that is a thread of this process."""
        made: list[socket.socket] = []

        def make() -> None:  # a thread may be of another namespace than its process; it ends with it
            with open(_NAMESPACES / self._name) as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((self.address, 0)))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def start(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start a process here; its standard output is a pipe, or goes to ``log`` with its errors."""
        entered = self.inside(command)
        environment = {**os.environ, **(env or {})}
        if log is None:
            return subprocess.Popen(entered, env=environment, stdout=subprocess.PIPE, text=True)
        with open(log, "ab") as file:
            return subprocess.Popen(
                entered, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True
            )

    def kill(self) -> None:
        """SIGKILL to all processes here, as if the machine lost its power; waits until they are gone."""
        until = time.monotonic() + _GONE_WITHIN
        while (pids := self._pids()) and time.monotonic() < until:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _pids(self) -> list[int]:
        """Processes here that have not ended: what is dead and not waited for does not count."""
        found = [int(pid) for pid in _ip("netns", "pids", self._name).split()]
        return [pid for pid in found if not _is_dead(pid)]

    def cut(self) -> None:
        """Take the cable out."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def mend(self) -> None:
        """Put the cable in again."""
        _ip("-n", self._switch, "link", "set", self._port, "up")

    def limit(self, rate: float) -> None:
        """Limit the card to ``rate`` bits a second, in each direction."""
        for namespace, device in ((self._name, "eth0"), (self._switch, self._port)):
            _run(
                *("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf"),
                *("rate", f"{rate:.0f}bit", "burst", str(BURST), "latency", f"{QUEUE_MS}ms"),
            )

    def dropped(self) -> int:
        """Packets to this host that its card's limit dropped."""
        text = _run("tc", "-n", self._switch, "-s", "qdisc", "show", "dev", self._port)
        return sum(int(word) for word in text.partition("dropped ")[2].partition(",")[:1] if word)


def can_make_networks() -> bool:
    """Whether this process may make namespaces, and has the commands for it."""
    return os.geteuid() == 0 and all(map(shutil.which, ("ip", "tc", "nsenter")))


class Network:
    """A switch and its hosts, from here to the end of a ``with`` block."""

    def __init__(self) -> None:
        if not can_make_networks():
            raise RuntimeError("network namespaces need root, iproute2 and util-linux")
        self._prefix = f"plait-{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._hosts: list[Host] = []
        self._names = [self._switch]
        try:
            _ip("netns", "add", self._switch)
            _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "br0", "up")
        except BaseException:
            self.close()
            raise

    def add_host(self, name: str, *, rate: float | None = None) -> Host:
        """A host more.

        Args:
            rate: of its card in bits a second, each way; None for no limit.
        """
        number = len(self._names)
        full, port, address = f"{self._prefix}-{name}", f"port{number}", f"10.77.0.{number}"
        self._names.append(full)
        _ip("netns", "add", full)
        _ip("link", "add", "eth0", "netns", full, "type", "veth", "peer", "name", port, "netns", self._switch)
        _ip("-n", full, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", full, "link", "set", device, "up")
        _ip("-n", self._switch, "link", "set", port, "master", "br0", "up")
        host = Host(full, address, self._switch, port)
        self._hosts.append(host)
        if rate is not None:
            host.limit(rate)
        return host

    def close(self) -> None:
        """Kill all that runs on the hosts, and remove them; a second call does nothing."""
        while self._hosts:
            self._hosts.pop().kill()
        while self._names:
            try:
                _ip("netns", "del", self._names.pop())
            except RuntimeError as error:
                warnings.warn(str(error), stacklevel=2)

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True
