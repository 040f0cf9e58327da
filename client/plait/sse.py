"""Server-sent events, from bytes as they come. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST: Final = 4 << 20
"""Bytes of one event."""
_END: Final = re.compile(rb"\r\n|\n|\r")


class EventTooLarge(ValueError):
    """An event has more than ``MOST`` bytes."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Args:
        kind: ``message`` if the stream names none.
        id: the last that the stream named; empty before the first.
    """

    kind: str
    data: str
    id: str


class EventDecoder:
    """Takes bytes, gives whole events; an event that is cut by the end of the stream never was.

    As the HTML standard says, but for ``retry``, which is not needed here. Lines end with CR, LF or both and
    nothing else: what else Unicode takes for a line's end may stand in the data.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._size = 0
        self._begun = False
        self._id = ""
        self._clear()

    def _clear(self) -> None:
        self._kind, self._data, self._size = "", list[str](), 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that these bytes complete.

        Raises:
            EventTooLarge: one has more than ``MOST`` bytes.
        """
        text = self._rest + chunk
        # Behind a CR at the end an LF may come, which would be one end of a line with it.
        held = text[-1:] == b"\r"
        *lines, self._rest = _END.split(text[:-1] if held else text)
        if held:
            self._rest += b"\r"
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event
        if self._size + len(self._rest) > MOST:
            raise EventTooLarge(f"an event of more than {MOST} bytes")

    def _line(self, raw: bytes) -> ServerEvent | None:
        if not self._begun:
            raw, self._begun = raw.removeprefix(b"\xef\xbb\xbf"), True
        if not raw:
            event = (
                ServerEvent(self._kind or "message", "\n".join(self._data), self._id) if self._data else None
            )
            self._clear()
            return event
        self._size += len(raw)
        name, _, value = raw.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
