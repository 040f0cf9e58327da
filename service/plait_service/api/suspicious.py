"""What no URI of a spec or of a token may look like, whatever it would mean to a store.

A prefix is only worth something if everybody who reads a URI reads the same place: this service, its
drivers, fsspec, a store, and the person who wrote the prefix. So a URI has one spelling here, the plain one.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

from plait.uri import UriError, mask_secrets, parse_glob, parse_uri

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_NO_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ACTIVE: Final = frozenset("/\\.:?#@%*[];~&")
"""What is never escaped without a purpose: it means something to one reader or another."""
_DOTS: Final = re.compile(r"[. ]+(;.*)?")

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# NFKC leaves them; readers, or IDNA, take them for a slash, a backslash, a dot, a colon or a percent sign.
_LOOKALIKES: Final = frozenset(
    "\u2044\u2215\u2571\u27cb\u29f8\u3033\u2216\u29f5\u29f9\u2572\u27cd\u3002\u06d4\u0701\u0702\ua4f8\ua60e"
    "\u2236\ua789\u02d0\u05c3\u0589\u066a"
)

_BUCKET: Final = r"[a-z0-9][a-z0-9._-]{0,254}"
_CONTAINER: Final = r"[a-z0-9$][a-z0-9-]{0,62}"
_AZURE: Final = rf"{_CONTAINER}(@[a-z0-9]{{3,24}}\.(dfs|blob)\.core\.windows\.net)?"
_HUB: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(@[A-Za-z0-9._-]{1,255})?"
_HOST: Final = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
_AUTHORITIES: Final = {
    "s3": _BUCKET,
    "gs": _BUCKET,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "hf": _HUB,
}


def what_is_wrong(text: str, *, pattern: bool = False) -> str | None:
    """Why a URI is not taken, worded to follow "it"; None if nothing is wrong. Opens nothing.

    Args:
        pattern: whether it is a glob, in which ``?`` is a wildcard.
    """
    return _characters(text) or _escapes(text) or _parts(text, pattern) or _unreadable(text, pattern)


def _characters(text: str) -> str | None:
    for character in text:
        category = unicodedata.category(character)
        if category in _UNSEEN or (category == "Zs" and character != " "):
            return "has a character that does not show"
        if character in _LOOKALIKES:
            return "has a character that looks like another one"
    if unicodedata.normalize("NFKC", text) != text:
        return "has a character that some readers take for another one (it is not in the form NFKC)"
    if "\\" in text:
        return "has a backslash"
    return "chains file systems with '::'" if "::" in text else None


def _escapes(text: str) -> str | None:
    if _NO_ESCAPE.search(text):
        return "has a % that begins no escape"
    try:
        hidden = "".join(unquote_to_bytes(found).decode() for found in _ESCAPES.findall(text))
    except UnicodeDecodeError:
        return "has % escapes that are not UTF-8"
    if "%" in hidden:
        return "is escaped twice"
    if not _ACTIVE.isdisjoint(hidden) or _characters(hidden):
        return "hides a character behind a % escape"
    return None


def _parts(text: str, pattern: bool) -> str | None:
    match = _SCHEME.match(text)
    if match is None:
        # A service's working directory and home mean nothing to whoever asks.
        return (
            _path(text[1:], pattern)
            if text.startswith("/")
            else "is neither an absolute path nor SCHEME://..."
        )
    scheme = match[1]
    if scheme != scheme.lower() or scheme in ("s3a", "s3n", "gcs", "local"):
        return "writes its scheme in another way than the usual (s3, gs, file, in lower case)"
    authority, _, path = text[match.end() :].partition("/")
    if scheme == "file":
        return "names a host; a local file has three slashes" if authority else _path(path, pattern)
    if scheme in ("http", "https") and "?" in path:
        return "has a query"
    if ".." in authority or not re.fullmatch(_AUTHORITIES.get(scheme, f"({_HOST})?"), authority):
        return "has no plain name of a bucket or host (no user, no port of a bucket, no pattern)"
    return _path(path, pattern)


def _path(path: str, pattern: bool) -> str | None:
    if "#" in path or ("?" in path and not pattern):
        return "has a query or a fragment"
    if mask_secrets(path) != path:  # of a signed URL: as a pattern it would be kept with the job
        return "has a query with a secret"
    segments = path.removesuffix("/").split("/") if path else []
    if "" in segments:
        return "has an empty segment"
    if any(_DOTS.fullmatch(re.sub(r"[\[\]!]", "", segment)) for segment in segments):
        return "has a segment of dots"
    return None


def _unreadable(text: str, pattern: bool) -> str | None:
    try:
        parse_glob(text) if pattern else parse_uri(text)
    except UriError as error:
        return error.reason
    return None
