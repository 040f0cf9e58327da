"""What a driver does beside the work: flush the journal, say that it is alive, notice a takeover."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from plait.errors import Cancelled, PlaitError
from plait_service.claim import HEARTBEAT, Claim, check_claim, heartbeat
from plait_service.journal import Journal
from plait_service.progress import PROGRESS_EVERY, PROGRESS_KEY
from plait_workers.storage.base import ObjectStore, Upload


@dataclass(frozen=True, kw_only=True)
class Household:
    """What there is to keep.

    Args:
        output: the store of claim, journal and progress.json.
        claim: renewed, and looked at, every few seconds.
        journal: flushed every ``every`` seconds.
        uploads: of each shard.
        halt: set when any of this fails: the work then makes no sense.
        progress: the bytes of progress.json, made anew each time.
    """

    output: ObjectStore
    claim: Claim
    journal: Journal
    uploads: Sequence[Upload]
    halt: threading.Event
    every: float
    progress: Callable[[], bytes]


@contextmanager
def housekeeping(house: Household) -> Iterator[None]:
    """Keep house on a thread of its own, for the length of the block.

    Raises:
        PlaitError: what went wrong with it; it goes before the ``Cancelled`` that it caused.
    """
    ended = threading.Event()
    errors: list[PlaitError] = []

    def keep_house() -> None:
        beat = shown = time.monotonic()
        while not ended.wait(house.every):
            try:
                house.journal.flush(house.uploads)
                if time.monotonic() - beat >= HEARTBEAT:
                    check_claim(house.output, house.claim)
                    heartbeat(house.output, house.claim)
                    beat = time.monotonic()
            except PlaitError as error:
                errors.append(error)
                house.halt.set()
                return
            if time.monotonic() - shown >= PROGRESS_EVERY:
                with suppress(PlaitError):  # nobody's work depends on it
                    house.output.put(PROGRESS_KEY, house.progress())
                shown = time.monotonic()

    thread = threading.Thread(target=keep_house, name="plait-housekeeping", daemon=True)
    thread.start()
    try:
        yield
    except Cancelled:
        if not errors:
            raise
    finally:
        ended.set()
        thread.join(1.0 if house.halt.is_set() else None)
    if errors:
        raise errors[0]
