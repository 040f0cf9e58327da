"""Clients of a service, as a process of their own: `load` sends requests, `watch` reads streams of events.

Started by service.py, with what it is to do as JSON on standard input; what it saw goes to standard output.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
from service_rows import RUNS, spec_of

Wanted = dict[str, Any]
Seen = list[tuple[str, float]]
"""What was asked for, and the seconds until its answer was read."""

_WARM = 14
"""Lists and submissions before the clock starts."""


class Asker:
    """Requests of each kind, their places drawn at random."""

    def __init__(self, client: httpx.AsyncClient, ids: list[str], first: int) -> None:
        self._client = client
        self._ids = ids
        self._numbers = itertools.count(first)
        self._random = random.Random(0)
        self._lists: tuple[Callable[[], dict[str, Any]], ...] = (
            dict,
            lambda: {"cursor": self._random.choice(ids)},
            lambda: {"state": "failed"},
            lambda: {"state": ["succeeded", "failed"]},
            lambda: {"label": f"run=r{self._random.randrange(RUNS)}"},
            lambda: {"label": "kind=nightly", "state": "succeeded"},
            lambda: {"output": spec_of(4 * self._random.randrange(len(ids) // 3))["output"]},
        )
        self._turns = itertools.cycle(self._lists)

    async def get(self) -> str:
        """A job, any of them."""
        await self._checked("GET", f"/v1/jobs/{self._random.choice(self._ids)}")
        return "get"

    async def list(self) -> str:
        """A page of 50, chosen in one of several ways, in turns."""
        params = next(self._turns)()
        found = await self._checked("GET", "/v1/jobs", params=params)
        assert found.json()["jobs"], params
        return "list " + "&".join(params)

    async def submit(self) -> str:
        """A new job."""
        number = next(self._numbers)
        body = {"spec": spec_of(number), "labels": {"run": "fresh", "kind": "trial"}}
        await self._checked("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": f"bench-{number}"})
        return "submit"

    async def _checked(self, method: str, path: str, **options: Any) -> httpx.Response:
        return (await self._client.request(method, path, **options)).raise_for_status()


async def load(wanted: Wanted) -> dict[str, Any]:
    """Requests at a stated rate whether or not answers come (open), or one by one in each client (closed).

    An open loop counts from when a request was due: one that waits for a connection, or behind others, counts
    with its wait.
    """
    headers = {"Authorization": f"Bearer {wanted['token']}"}
    limits = httpx.Limits(max_connections=wanted["connections"])
    async with httpx.AsyncClient(
        base_url=wanted["url"], headers=headers, limits=limits, timeout=60
    ) as client:
        asker = Asker(client, wanted["ids"], wanted["first"])
        await asyncio.gather(*(asker.get() for _ in range(wanted["connections"] * 4)))
        for _ in range(_WARM):  # what the service keeps of statements that it has seen
            await asker.list()
            await asker.submit()
        seen: Seen = []
        began = time.perf_counter()
        if "rates" in wanted:
            await _open(asker, wanted["rates"], wanted["seconds"], seen)
        else:
            await _closed(asker, wanted["kind"], wanted["connections"], wanted["seconds"], seen)
        return {"seconds": time.perf_counter() - began, "seen": seen}


async def _open(asker: Asker, rates: dict[str, float], seconds: float, seen: Seen) -> None:
    began = time.perf_counter() + 0.1

    async def one(kind: str, due: float) -> None:
        what = await getattr(asker, kind)()
        seen.append((what, time.perf_counter() - due))

    async with asyncio.TaskGroup() as group:
        for due, kind in sorted(
            (began + (index + 0.5) / rate, kind)
            for kind, rate in rates.items()
            for index in range(int(rate * seconds))
        ):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(kind, due))


async def _closed(asker: Asker, kind: str, connections: int, seconds: float, seen: Seen) -> None:
    end = time.perf_counter() + seconds

    async def one() -> None:
        while (began := time.perf_counter()) < end:
            what = await getattr(asker, kind)()
            seen.append((what, time.perf_counter() - began))

    await asyncio.gather(*(one() for _ in range(connections)))


async def watch(wanted: Wanted) -> dict[str, Any]:
    """Watch a job with many streams until all of them end; a line once all are open.

    Says of each which events it saw, and when its end came.
    """
    headers = {"Authorization": f"Bearer {wanted['token']}"}
    limits = httpx.Limits(max_connections=None)
    open_streams = 0
    async with httpx.AsyncClient(
        base_url=wanted["url"], headers=headers, limits=limits, timeout=120
    ) as client:

        async def one() -> tuple[bool, list[int], float]:
            nonlocal open_streams
            ids: list[int] = []
            async with client.stream("GET", f"/v1/jobs/{wanted['job']}/events") as stream:
                stream.raise_for_status()
                open_streams += 1
                if open_streams == wanted["streams"]:
                    print("open", flush=True)
                async for line in stream.aiter_lines():
                    if line.startswith("id: "):
                        ids.append(int(line[4:]))
                    if line == "event: end":
                        return True, ids, time.time()
            return False, ids, time.time()

        seen = await asyncio.gather(*(one() for _ in range(wanted["streams"])), return_exceptions=True)
    errors = Counter(repr(each) for each in seen if isinstance(each, BaseException))
    return {"streams": [each for each in seen if not isinstance(each, BaseException)], "errors": errors}


def main() -> None:
    """Do what standard input says."""
    tasks: dict[str, Callable[[Wanted], Coroutine[Any, Any, dict[str, Any]]]] = {"load": load, "watch": watch}
    gc.disable()  # a collection here would count as the service's
    print(json.dumps(asyncio.run(tasks[sys.argv[1]](json.load(sys.stdin)))), flush=True)


if __name__ == "__main__":
    main()
