"""Runs a merge on a cluster, and kills one of its workers as soon as it has work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def merge_and_kill(command: list[str], *, folder: Path) -> Iterator[str]:
    """Run ``plait merge ... --address ...``, and kill the first worker that says that it is there.

    Yields:
        What happened, a line each.

    Raises:
        SystemExit: the merge failed, or was over before the worker was gone.
    """
    killed: int | None = None
    lost = 0
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stderr:
        event = _event(line)
        if event.get("kind") == "node-joined" and killed is None:
            killed = int(event["pid"])
            with suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
            yield f"worker {killed} is there, and killed"
        elif event.get("kind") == "worker-lost":
            lost += 1
            yield f"the driver misses a worker ({event.get('found')}); its parts go to others"
    said = process.stdout.read().splitlines()
    if process.wait() != 0:
        raise SystemExit(f"the demo stops: the merge ended with status {process.returncode}")
    if not lost:
        raise SystemExit("the demo stops: the merge was over before its worker was gone")
    yield from said[:1]


def _event(line: str) -> dict[str, Any]:
    """What a line of the log says; empty where it is none."""
    with suppress(json.JSONDecodeError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}
