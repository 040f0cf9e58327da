"""What is wrong with a spec, in plain words: pydantic's errors turned into findings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic_core import ErrorDetails, ValidationError

from plait.uri import mask_secrets
from plait.yaml_source import Path

_SHOWN = 80
_MOST = 1000  # findings that words are looked for; a file of nothing but mistakes must not cost minutes

# By the type of pydantic's error, with its context filled in.
_WORDS: Mapping[str, str] = {
    "expected": "{what}",
    "string_type": "text",
    "string_unicode": "text",
    "string_too_short": "at least {min_length} character(s)",
    "string_too_long": "at most {max_length} character(s)",
    "string_pattern_mismatch": "text that matches {pattern}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "nothing",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "too_short": "at least {min_length} item(s)",
    "too_long": "at most {max_length} items",
    "dict_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "value_error": "{error}",
    "assertion_error": "{error}",
    "missing": "this required key",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, and the place in the data that it is wrong at.

    Args:
        path: keys and indices from the root.
        expected: what should have been there.
        found: what was there, shortened and without secrets.
        hint: what to do next, as a sentence without its full stop.
    """

    path: Path
    expected: str
    found: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{dotted(self.path)}: expected {self.expected}"
        text += "" if self.found is None else f", found {self.found}"
        return text if self.hint is None else f"{text}. {self.hint}"


def dotted(path: Path) -> str:
    """``path`` as the command line writes it, ``models.0.weight``; a key that is no word is quoted."""
    return (
        ".".join(str(part) if re.fullmatch(r"[\w-]{1,80}", str(part)) else shown(part) for part in path)
        or "the spec"
    )


def shown(value: object) -> str:
    """``value`` for a message: as it would be typed, at most 80 characters, secrets masked."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return f"a list of {len(value)}"
    text = repr(mask_secrets(value)) if isinstance(value, str) else mask_secrets(str(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def unknown_key(path: Path, keys: Sequence[str]) -> Finding:
    """A key that is not among ``keys``, with the nearest one if there is a near one."""
    return Finding(
        path=path, expected="a known key", found=shown(path[-1]), hint=nearest(str(path[-1]), keys)
    )


def nearest(word: str, words: Sequence[str]) -> str | None:
    """A hint: the one of ``words`` that ``word`` was meant to be, or all of them."""
    if not words:
        return None
    near = difflib.get_close_matches(word[:_SHOWN].lower(), words, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(words)}"


def findings(error: ValidationError, data: object, keys: Callable[[Path], Sequence[str]]) -> list[Finding]:
    """What pydantic found, one finding for each place, 1000 at most.

    Args:
        error: of a model that was given ``data``.
        data: what was validated.
        keys: the valid keys of the mapping at a path.
    """
    places: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        places.setdefault(_place(detail, data), []).append(detail)
    return [_finding(path, details, keys) for path, details in islice(places.items(), _MOST)]


def _place(detail: ErrorDetails, data: Any) -> Path:
    """The error's place in the data: pydantic also names branches of unions and validators."""
    path: list[str | int] = []
    *parents, last = detail["loc"] or ("",)
    for part in parents:
        if _has(data, part):
            data = data[part]
            path.append(part)
    if _has(data, last) or detail["type"] == "missing":
        path.append(last)
    return tuple(path)


def _has(data: object, part: str | int) -> bool:
    if isinstance(data, list | tuple):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _finding(path: Path, details: Sequence[ErrorDetails], keys: Callable[[Path], Sequence[str]]) -> Finding:
    first = details[0]
    if first["type"] == "extra_forbidden":
        return unknown_key(path, keys(path[:-1]))
    hints = [detail["ctx"]["hint"] for detail in details if "hint" in detail.get("ctx", {})]
    return Finding(
        path=path,
        # A union fails once for each of its branches; any of them would have done.
        expected=" or ".join(dict.fromkeys(map(_expected, details))),
        found="it missing" if first["type"] == "missing" else shown(first["input"]),
        hint=hints[0] if hints else None,
    )


def _expected(detail: ErrorDetails) -> str:
    context = {name: mask_secrets(_text(value)) for name, value in detail.get("ctx", {}).items()}
    words = _WORDS.get(detail["type"])
    if detail["type"] == "literal_error" and " or " not in context["expected"]:
        words = "{expected}"
    try:
        return words.format(**context) if words else _lower(mask_secrets(detail["msg"]))
    except KeyError:  # another pydantic, another context
        return _lower(mask_secrets(detail["msg"]))


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return str(value)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
