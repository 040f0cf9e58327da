"""YAML, read as data alone, with the line of each place kept.

The data is that of the YAML 1.2 core schema: ``yes``, ``on`` and dates are text. Aliases, anchors,
tags, merge keys, repeated keys and second documents are refused, so that a small file cannot grow
into a large one and each value stands where a reader looks for it.

The parser's events are folded with a stack of our own: no nesting can exhaust Python's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import yaml

from plait.errors import SpecInvalid
from plait.uri import mask_secrets

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
Path: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 2**20
MAX_DEPTH = 32
_MAX_NUMBER = 400  # characters; a float takes no more, and Python refuses to read far longer integers

_CONSTANTS: Mapping[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], Plain]], ...] = (
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), float),
)
# libyaml is some thirty times faster, and not in every build of PyYAML.
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class YamlSource:
    """Data that was read, and the lines that it stands on.

    Args:
        data: the data; ``None`` for an empty text.
        lines: the line of each key and item, counted from 1.
    """

    data: Plain
    lines: Mapping[Path, int]

    def line_of(self, path: Path) -> int | None:
        """The line of the key or item at ``path``, or of its nearest parent that exists.

        Args:
            path: keys and indices from the root, such as ``("models", 0, "weight")``.
        """
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read_yaml(text: str | bytes, *, name: str = "merge.yaml") -> YamlSource:
    """The data of one YAML document and its lines; no code runs and no object is made.

    At most 1 MiB of UTF-8 and 32 levels are read. The time is linear in the text.

    Args:
        text: the document.
        name: what errors call it.

    Raises:
        SpecInvalid: the first thing that cannot be read, ``where`` being ``NAME:LINE``.
    """
    return _Reader(lambda line: f"{name}:{line}").read(text)


def read_value(text: str, *, where: str) -> Plain:
    """One scalar, ``[...]`` or ``{...}``; refuses what needs lines of its own.

    Args:
        text: as on a command line.
        where: what errors call it.

    Raises:
        SpecInvalid: it cannot be read.
    """
    return _Reader(lambda _: where, inline=True).read(text).data


def resolve_plain(text: str) -> Plain:
    """What an unquoted scalar means in the core schema; ``ValueError`` for a number too long to be one."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for pattern, convert in _NUMBERS:
        if pattern.fullmatch(text):
            if len(text) > _MAX_NUMBER:
                raise ValueError("a number is too long")
            return convert(text)
    return text


@dataclass(slots=True)
class _Frame:
    """A list or mapping whose end has not come; ``key`` waits for its value."""

    into: list[Plain] | dict[str, Plain]
    path: Path
    key: str | None = None


@dataclass(slots=True)
class _Reader:
    where: Callable[[int], str]
    inline: bool = False
    root: Plain = None
    lines: dict[Path, int] = field(default_factory=dict)
    open: list[_Frame] = field(default_factory=list)
    documents: int = 0

    def read(self, text: str | bytes) -> YamlSource:
        for event in self.events(self.decode(text)):
            mark = event.start_mark
            self.take(event, mark.line + 1 if mark else 1)
        return YamlSource(self.root, self.lines)

    def decode(self, text: str | bytes) -> str:
        try:
            data = text if isinstance(text, bytes) else text.encode()
            if len(data) > MAX_BYTES:
                self.refuse(1, "is larger than 1 MiB")
            return data.decode()
        except UnicodeError:
            self.refuse(1, "is not UTF-8")

    def events(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            self.refuse(line, f"does not parse: {_shown(error.problem or error.context or 'no reason')}")
        except yaml.reader.ReaderError as error:
            at = error.position if isinstance(error.position, int) else 0
            self.refuse(text.count("\n", 0, at) + 1, f"does not parse: {_shown(str(error.reason))}")
        except (yaml.YAMLError, ValueError) as error:
            # PyYAML converts escapes and version numbers without looking at them.
            self.refuse(1, f"does not parse: {_shown(str(error))}")

    def refuse(self, line: int, why: str) -> NoReturn:
        raise SpecInvalid(f"the YAML {why}", where=self.where(line)) from None

    def take(self, event: yaml.Event, line: int) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    self.refuse(line, "has a second document; keep one")
            case yaml.AliasEvent():
                self.refuse(line, f"has an alias, *{_shown(str(event.anchor))}; write the value out")
            case yaml.NodeEvent():
                self.check_node(event, line)
                self.take_node(event, line)
            case yaml.CollectionEndEvent():
                self.open.pop()

    def check_node(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            self.refuse(line, f"has an anchor, &{_shown(event.anchor)}; write the value out where it is used")
        if event.tag is not None:
            self.refuse(line, f"has a tag, {_shown(event.tag)}; write plain data")
        if self.inline and getattr(event, "flow_style", True) is False:
            self.refuse(line, "is no scalar, [...] or {...}")

    def take_node(self, event: yaml.NodeEvent, line: int) -> None:
        frame = self.open[-1] if self.open else None
        if frame is not None and isinstance(frame.into, dict) and frame.key is None:
            frame.key = self.key(event, frame, line)
            return
        value = self.scalar(event, line) if isinstance(event, yaml.ScalarEvent) else self.collection(event)
        path = self.place(frame, value, line)
        if isinstance(value, list | dict):
            if len(self.open) == MAX_DEPTH:
                self.refuse(line, f"nests more than {MAX_DEPTH} levels")
            self.open.append(_Frame(value, path))

    def place(self, frame: _Frame | None, value: Plain, line: int) -> Path:
        """Put ``value`` where it belongs; a value is found under its key's line, an item under its own."""
        if frame is None:
            self.root = value
            self.lines[()] = line
            return ()
        if isinstance(frame.into, list):
            path = (*frame.path, len(frame.into))
            frame.into.append(value)
            self.lines[path] = line
            return path
        assert frame.key is not None
        path = (*frame.path, frame.key)
        frame.into[frame.key] = value
        frame.key = None
        return path

    # A scalar that is not quoted has the style '' by libyaml and None by PyYAML.
    def key(self, event: yaml.NodeEvent, frame: _Frame, line: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self.refuse(line, "has a list or a mapping for a key; a key is a word")
        key = self.scalar(event, line)
        if not event.style and key == "<<":
            self.refuse(line, "has a merge key, <<; write the keys out")
        if not isinstance(key, str):
            self.refuse(line, f"has the key {_shown(event.value)}, which is not text; quote it")
        path = (*frame.path, key)
        if path in self.lines:
            self.refuse(line, f"has the key {_shown(key)!r} twice, first in line {self.lines[path]}")
        self.lines[path] = line
        return key

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Plain:
        text = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            self.refuse(line, "has half a surrogate pair, which is no character")
        try:
            return text if event.style else resolve_plain(text)
        except ValueError:
            self.refuse(line, f"has a number of {len(text)} digits")

    @staticmethod
    def collection(event: yaml.NodeEvent) -> Plain:
        return [] if isinstance(event, yaml.SequenceStartEvent) else {}


def _shown(text: str) -> str:
    return mask_secrets(text)[:80]
