"""`plait serve` as a process that is measured."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Self

import httpx
from common import PLAIT

_SERVES = re.compile(r"^plait serves (http://\S+)", re.MULTILINE)
_FIELDS = {"RssAnon": "anonymous", "VmRSS": "resident", "VmHWM": "peak"}
_PATIENCE = 60.0


class Serving:
    """A service on a free port, from when it is ready to the end of the block.

    Args:
        folder: with its database.
        options: of `plait serve`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._log = folder / "service.log"
        command = [str(PLAIT), "serve", "--folder", str(folder), "--port", "0", *options]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.url = ""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def memory(self) -> dict[str, int]:
        """Bytes: anonymous and resident now, and resident at most."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return {ours: int(fields[name].split()[0]) * 1024 for name, ours in _FIELDS.items()}

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _PATIENCE
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"the service does not start\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _is_ready(self) -> bool:
        if (found := _SERVES.search(self._log.read_text())) is None:
            return False
        self.url = found[1]
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False
