"""The values of a spec's keys: URIs, sizes, weights, options, and what to say if they are none."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from plait.sizes import SIZE_WORDS, format_size, parse_size
from plait.uri import Uri, UriError, parse_glob, parse_uri

MAX_MODELS = 4096
# With the levels above an option, what the YAML reader takes.
_MAX_OPTION_DEPTH = 29

_SHORT_DTYPES = ("auto", "bf16", "f16", "f32", "f64")
_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}


def expected(what: str, *, hint: str | None = None) -> PydanticCustomError:
    """A pydantic error that says what should have been there, in the words of the final report."""
    context: dict[str, Any] = {"what": what} if hint is None else {"what": what, "hint": hint}
    return PydanticCustomError("expected", "expected {what}", context)


def _uri_text(value: object, parse: Callable[[str], Uri] = parse_uri) -> object:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        try:
            parse(value)
        except UriError as error:
            raise expected("a path or a URI", hint=f"It {error.reason}") from None
    return value


def _glob_text(value: object) -> object:
    return _uri_text(value, parse_glob)


def _size(value: object) -> object:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise expected(SIZE_WORDS)
    try:
        return parse_size(value)
    except ValueError as error:
        raise expected(SIZE_WORDS, hint=f"It is {error}") from None


def size_of_at_least(minimum: int) -> BeforeValidator:
    """A size in bytes or size words, with a floor."""

    def check(value: object) -> object:
        size = _size(value)
        if isinstance(size, int) and size < minimum:
            raise expected(f"at least {format_size(minimum)}")
        return size

    return BeforeValidator(check)


def _dtype(value: object) -> object:
    """One spelling for each dtype: ``BF16`` and ``bfloat16`` are ``bf16``."""
    if not isinstance(value, str):
        return value
    short = _DTYPES.get(value.lower(), value.lower())
    return short if short in _SHORT_DTYPES else value


def _plain(value: Any, depth: int = 0) -> Any:
    """An option as YAML and JSON can hold it; whatever else Python has is refused."""
    if depth > _MAX_OPTION_DEPTH:
        raise expected(f"at most {_MAX_OPTION_DEPTH} levels of nesting")
    match value:
        case None | bool():
            return value
        case str() if not any("\ud800" <= character <= "\udfff" for character in value):
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case float() if math.isfinite(value):
            return value
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {_plain(key): _plain(item, depth + 1) for key, item in value.items()}
    raise expected("plain data: text, a number of 64 bits, true, false, nothing, a list or a mapping")


UriText: TypeAlias = Annotated[str, BeforeValidator(_uri_text)]
GlobText: TypeAlias = Annotated[str, BeforeValidator(_glob_text)]
Dtype: TypeAlias = Annotated[Literal["auto", "bf16", "f16", "f32", "f64"], BeforeValidator(_dtype)]
Weight: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Option: TypeAlias = Annotated[Any, BeforeValidator(_plain)]
