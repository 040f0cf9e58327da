"""A client of one endpoint, and the one layer of retries that all requests pass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
from botocore.exceptions import ClientError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from plait.errors import StoreUnavailable
from plait.spec_storage import StoreOptions
from plait_workers.storage.s3.client import Client, make_client
from plait_workers.storage.s3.errors import SlowDown, WrongAnswer, map_error
from plait_workers.storage.s3.throttle import Throttle

CONCURRENCY: Final = 64
TIMEOUT: Final = 30.0
PATIENCE: Final = 300.0
FIRST_PATIENCE: Final = 15.0
"""Patience with an endpoint that has never answered: its name may be wrong."""
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 20.0
_WRONG_ANSWERS: Final = 5
"""An answer that is wrong so many times in a row is not chance."""

T = TypeVar("T")


class Connection:
    """Requests to one endpoint under one set of options. Shared by threads; not by forks.

    Args:
        options: of the bucket; nothing is opened before the first request.
    """

    def __init__(self, options: StoreOptions) -> None:
        self.options = options
        self.timeout = TIMEOUT if options.timeout is None else options.timeout
        self.patience = PATIENCE if options.patience is None else options.patience
        self.concurrency = CONCURRENCY if options.concurrency is None else options.concurrency
        self.conditional_complete: bool | None = None
        """Whether the store knows If-None-Match on completion; None until it was tried."""
        self._throttle = Throttle(self.concurrency)
        self._has_answered = False
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._ahead: ThreadPoolExecutor | None = None
        self._spare: list[memoryview] = []

    @property
    def client(self) -> Client:
        """The client; made on first use, which takes a fifth of a second."""
        with self._lock:
            if self._client is None:
                self._client = make_client(self.options, timeout=self.timeout)
            return self._client

    @property
    def admitted(self) -> int:
        """Requests admitted at once, now: fewer after the store said slow down."""
        return self._throttle.limit

    def submit(self, task: Callable[[], T]) -> Any:
        """Run a request ahead of its need; the future's result is the answer."""
        with self._lock:
            if self._ahead is None:
                self._ahead = ThreadPoolExecutor(self.concurrency, thread_name_prefix="plait-s3")
            return self._ahead.submit(task)

    def take_buffer(self, size: int) -> memoryview:
        """At least ``size`` bytes, used before if there are any: fresh memory costs page faults.

        What they hold is left as it is: to clear 16 MiB takes milliseconds under the interpreter's lock.
        There are never more buffers than were in use at once: one that is too small goes for a larger.
        """
        with self._lock:
            for index, buffer in enumerate(self._spare):
                if len(buffer) >= size:
                    return self._spare.pop(index)
            if self._spare:
                self._spare.pop()
        return np.empty(size, np.uint8).data

    def give_back(self, buffer: memoryview) -> None:
        """Nobody looks at this buffer any more."""
        with self._lock:
            self._spare.append(buffer)

    def call(self, operation: str, doing: str, where: str, **arguments: Any) -> dict[str, Any]:
        """One request, tried again where that can help.

        Args:
            operation: botocore's name of it, such as ``head_object``.
            doing, where: what an error says.
            arguments: botocore's.

        Raises:
            PlaitError: botocore's own exceptions never pass.
        """
        return self.attempt(lambda: self.once(operation, doing, where, **arguments))

    def once(self, operation: str, doing: str, where: str, **arguments: Any) -> dict[str, Any]:
        """One request, tried once."""
        try:
            client = self.client
            with self._throttle:
                answer = client.ask(operation, arguments)
            self._has_answered = True
            return answer
        except Exception as error:
            self._has_answered |= isinstance(error, ClientError)
            mapped = map_error(error, doing, where)
            if isinstance(mapped, SlowDown):
                self._throttle.slow_down()
            raise mapped from error

    def guarded(self, task: Callable[[], T], doing: str, where: str) -> T:
        """Run what reads an answer's body; errors are mapped, nothing is tried again."""
        try:
            return task()
        except Exception as error:
            raise map_error(error, doing, where) from error

    def attempt(self, task: Callable[[], T]) -> T:
        """Run ``task`` until it succeeds, fails for good, or patience ends.

        Waits are random, up to 0.1 s at first and twice as much each time, to 20 s at most.
        """
        return Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=self._is_enough,
            wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
            reraise=True,
        )(task)

    def _is_enough(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, WrongAnswer) and state.attempt_number >= _WRONG_ANSWERS:
            return True
        patience = self.patience if self._has_answered else min(self.patience, FIRST_PATIENCE)
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep >= patience
