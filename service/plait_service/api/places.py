"""Which places a spec may name: of an allowed scheme, and at or below a prefix of whoever submits it.

Nothing is opened; of local paths, links are followed as they are now. Who can make links below a folder that
a token may use can make them later, too: give prefixes of local folders to whom you trust with the machine.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from plait.errors import Forbidden, SpecInvalid
from plait.spec_fields import MAX_MODELS
from plait.spec_model import MergeSpec, Source
from plait.uri import Uri, UriError, parse_glob, parse_uri
from plait_service.api.principal import Principal
from plait_service.api.settings import Settings
from plait_service.api.suspicious import what_is_wrong

_MOST_SHOWN: Final = 32
_PRIVATE: Final = ".plait"
_REGION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A URI of a spec; ``key`` says where it stands."""

    key: str
    text: str
    pattern: bool = False
    written: bool = False

    @property
    def uri(self) -> Uri:
        return parse_glob(self.text) if self.pattern else parse_uri(self.text)


class _Held:
    """Prefixes, as they are written and as their links lead."""

    def __init__(self, prefixes: Sequence[Uri], *, verb: str, everything: bool) -> None:
        self.verb, self.everything = verb, everything
        self._real = tuple(map(_real, prefixes))
        self._given = (*prefixes, *self._real)

    def names(self, uri: Uri) -> bool:
        return any(each.contains(uri) for each in self._given)

    def reaches(self, uri: Uri) -> bool:
        real = _real(uri)
        return any(each.contains(real) for each in self._real)


def prefix(text: str) -> Uri:
    """The canonical place of a token's prefix.

    Raises:
        SpecInvalid: it is no plain URI of a folder, or a pattern.
    """
    wrong = what_is_wrong(text)
    if wrong is None and glob.has_magic(text):
        wrong = "is a pattern; name the folder above"
    if wrong is not None:
        raise SpecInvalid(
            "a prefix of a token",
            expected="a bucket or a folder, such as s3://runs/nightly/ or /srv/models",
            found=str(UriError(text, wrong)),
        )
    return parse_uri(text)


def prefixes(texts: Iterable[str]) -> tuple[Uri, ...]:
    """As :func:`prefix`, for several; each once."""
    return tuple(dict.fromkeys(map(prefix, texts)))


def authorise(spec: MergeSpec, principal: Principal, settings: Settings) -> None:
    """Refuse a spec that names a place which is not allowed.

    Cost: no store is asked; local paths are resolved, local globs listed.

    Args:
        principal: models, base and ``copy_from`` must lie at or below a prefix that it reads, the output at
            or below one that it writes. A glob counts by what stands before its first wildcard.
        settings: the schemes, and whether specs may name endpoints.

    Raises:
        Forbidden: names every such place, and the prefixes that there are.
    """
    everything = principal.anonymous
    read = _Held(principal.read, verb="reads", everything=everything)
    write = _Held(principal.write, verb="writes", everything=everything)
    refused = [
        f"{place.key}: {UriError(place.text, why)}"
        for place in _places(spec)
        if (why := _refusal(place, write if place.written else read, settings)) is not None
    ]
    if not settings.endpoints:
        refused += _endpoints(spec)
    if not refused:
        return
    more = len(refused) - _MOST_SHOWN
    raise Forbidden(
        f"{len(refused)} place(s) of the spec are not allowed",
        found="; ".join(refused[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else ""),
        hint=_allowed(principal, settings),
    )


def _places(spec: MergeSpec) -> Iterator[_Place]:
    named = set()
    for number, entry in enumerate(spec.models):
        is_one = isinstance(entry, Source)
        text = entry.uri if isinstance(entry, Source) else entry.glob
        named.add(text)
        yield _Place(key=f"models[{number}]", text=text, pattern=not is_one)
    if spec.base is not None:
        yield _Place(key="base", text=spec.base)
    if spec.copy_from is not None and spec.copy_from not in named | {spec.base}:
        yield _Place(key="copy_from", text=spec.copy_from)
    yield _Place(key="output", text=spec.output, written=True)


def _refusal(place: _Place, held: _Held, settings: Settings) -> str | None:
    wrong = what_is_wrong(place.text, pattern=place.pattern) or _closed(place, settings)
    return wrong or (None if held.everything else _outside(place, held))


def _closed(place: _Place, settings: Settings) -> str | None:
    """To everybody."""
    if place.uri.scheme not in settings.schemes:
        return f"is of a scheme that is not allowed here ({place.uri.scheme})"
    if place.written and _PRIVATE in place.uri.path.split("/"):
        return f"lies in a folder that merges keep for themselves ({_PRIVATE})"
    return None


def _outside(place: _Place, held: _Held) -> str | None:
    uri = place.uri
    if not held.names(_head(uri) if place.pattern else uri):
        return f"is not at or below a prefix that the token {held.verb}"
    if not uri.is_local:
        return None
    reached = _reached(place, uri)
    if len(reached) > MAX_MODELS + 1:
        return f"finds more than {MAX_MODELS} paths"
    if not all(map(held.reaches, reached)):
        return f"leads, through a link, out of what the token {held.verb}"
    return None


def _reached(place: _Place, uri: Uri) -> list[Uri]:
    """Local paths that a place stands for, each of which may be a link."""
    if place.pattern:
        found = itertools.islice(glob.iglob(uri.path), MAX_MODELS + 1)
        return [_head(uri), *(Uri("file", "", path) for path in found)]
    return [uri, uri.join(_PRIVATE)] if place.written else [uri]


def _head(pattern: Uri) -> Uri:
    """What stands before the first segment with a wildcard."""
    literal = itertools.takewhile(lambda segment: not glob.has_magic(segment), pattern.path.split("/"))
    path = "/".join(literal)
    return Uri(pattern.scheme, pattern.authority, path or ("/" if pattern.is_local else ""))


def _real(uri: Uri) -> Uri:
    return Uri("file", "", os.path.realpath(uri.path)) if uri.is_local else uri


def _endpoints(spec: MergeSpec) -> Iterator[str]:
    """Of S3. A region is part of a host's name, so it must be a plain one."""
    for key, options in [
        ("storage", spec.storage),
        *((f"storage.buckets.{n}", o) for n, o in spec.storage.buckets.items()),
    ]:
        if options.endpoint_url is not None:
            yield f"{key}.endpoint_url: specs may not name endpoints here"
        if options.region is not None and not _REGION.fullmatch(options.region):
            yield f"{key}.region: is not the name of a region"


def _allowed(principal: Principal, settings: Settings) -> str:
    schemes = f"Schemes: {', '.join(sorted(settings.schemes))}"
    if principal.anonymous:
        return schemes
    read, write = (", ".join(map(str, held)) or "nothing" for held in (principal.read, principal.write))
    return f"The token reads {read}, and writes {write}. {schemes}"
