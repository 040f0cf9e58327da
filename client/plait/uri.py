"""URIs of models and results: read once, canonical from then on, so that they compare.

A URI is a local path, ``file://`` and a path, or ``scheme://authority/path``. Which schemes have a
store is not decided here. No message of this module carries a secret.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)")
_PORT = re.compile(r"[0-9]+(/|$)")
_SECRET_PARAMETER = re.compile(r"sig|token|secret|passw|credential|key", re.IGNORECASE)
_MAX_LENGTH = 4096  # of a path in Linux; keys of object stores are shorter
_SHOWN = 300
_LOCAL_STARTS = ("/", "./", "../", "~")

# One name for each store, so that `s3a://b/x` and `s3://b/x` are known to be the same place.
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "local": "file"}
# Here the authority is a bucket or a plain host, and what stands before an @ can only be a secret.
_NO_USER = frozenset({"s3", "gs", "http", "https"})
_NEEDS_AUTHORITY = _NO_USER | {"az", "abfs", "abfss", "r2", "oss", "hf"}


class UriError(ValueError):
    """A text that is no URI.

    Args:
        text: what was read; it is kept short, with its secrets masked.
        reason: what is wrong, worded to follow "it".
    """

    def __init__(self, text: str, reason: str) -> None:
        masked = mask_secrets(text)
        self.text = masked if len(masked) <= _SHOWN else f"{masked[: _SHOWN - 3]}..."
        self.reason = reason
        super().__init__(f"{self.text!r} {reason}")

    def __reduce__(self) -> tuple[type[UriError], tuple[str, str]]:
        return (type(self), (self.text, self.reason))


@dataclass(frozen=True, order=True, slots=True)
class Uri:
    """A canonical place: two texts that mean the same place give equal ``Uri``.

    Made by :func:`parse_uri`, not by hand. ``str()`` of it is read back as an equal ``Uri``.
    Symbolic links are not followed.

    Args:
        scheme: in lower case; ``file`` for a local path.
        authority: the bucket or host; empty for a local path.
        path: absolute for a local path; otherwise what follows the authority's slash.
    """

    scheme: str
    authority: str
    path: str

    def __str__(self) -> str:
        if self.is_local:
            return self.path
        below = f"/{self.path}" if self.path or not self.authority else ""
        return f"{self.scheme}://{self.authority}{below}"

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine."""
        return self.scheme == "file"

    @property
    def local_path(self) -> Path:
        """The absolute path of this machine; ``ValueError`` for a URI of a store."""
        if not self.is_local:
            raise UriError(str(self), "is not a local path")
        return Path(self.path)

    def join(self, name: str) -> Uri:
        """The place ``name`` below this one; never one that lies elsewhere.

        Args:
            name: relative, with ``/`` between its parts. Names come out of files that others wrote,
                so a name that would climb out (``..``, a leading ``/``) is a ``ValueError``.
        """
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise UriError(name, f"is not a name below {self}")
        folder = str(self)
        return parse_uri(folder + name if folder.endswith("/") else f"{folder}/{name}")

    def contains(self, other: Uri) -> bool:
        """Whether ``other`` is this place or lies below it, by whole path segments."""
        if (self.scheme, self.authority) != (other.scheme, other.authority):
            return False
        folder = self.path.rstrip("/") + "/" if self.path else ""
        return other.path == self.path or other.path.startswith(folder)

    def pattern_contains(self, other: Uri) -> bool:
        """Whether ``other`` lies at or below a place that this, read as a glob, can match.

        ``*``, ``?`` and ``[...]`` match within one path segment.
        """
        if (self.scheme, self.authority) != (other.scheme, other.authority):
            return False
        pattern, parts = self.path.split("/"), other.path.split("/")
        return len(parts) >= len(pattern) and all(map(fnmatch.fnmatchcase, parts, pattern))


def parse_uri(text: str) -> Uri:
    """The canonical :class:`Uri` of ``text``.

    A local path is made absolute against the working directory; its ``.``, ``..`` and doubled
    slashes are resolved, its trailing slashes dropped, a leading ``~`` is the home folder, and
    ``%`` escapes are resolved behind ``file://`` alone. Behind another scheme only trailing
    slashes are dropped: a store's keys are taken as written. Opens no file.

    Args:
        text: such as ``runs/a``, ``file:///runs/a`` or ``s3://bucket/runs/a``. A path that would
            be taken for a URI is written with a leading ``./``.

    Raises:
        UriError: a ``ValueError`` that says what is wrong, secrets masked.
    """
    return _parse(text, pattern=False)


def parse_glob(text: str) -> Uri:
    """As :func:`parse_uri`, for a glob: what is added to a relative pattern matches only itself."""
    return _parse(text, pattern=True)


def _parse(text: str, *, pattern: bool) -> Uri:
    _refuse_characters(text, text)
    uri = _read(text, pattern=pattern)
    # Again: what was added, unescaped or cut off may have brought one, and a Uri is read back as itself.
    _refuse_characters(text, str(uri))
    return uri


def _read(text: str, *, pattern: bool) -> Uri:
    if text.startswith(_LOCAL_STARTS):
        return _local(text, text, pattern=pattern)
    if "::" in text:
        raise UriError(
            text, "chains file systems with '::', which Plait does not read; name the place itself"
        )
    match = _SCHEME.match(text)
    if match is None:
        if "://" in text:
            raise UriError(text, "has no valid scheme before '://'")
        return _local(text, text, pattern=pattern)
    if len(match[2]) < 2:
        raise UriError(text, "is neither a path nor SCHEME://...; write ./ before a local path with a colon")
    scheme = _ALIASES.get(match[1].lower(), match[1].lower())
    rest = text[match.end(1) + len("://") :]
    return _file(text, rest, pattern=pattern) if scheme == "file" else _remote(text, scheme, rest)


def _refuse_characters(text: str, part: str) -> None:
    if not part.strip(" "):
        raise UriError(text, "is empty")
    if len(part) > _MAX_LENGTH:
        raise UriError(text, f"is longer than {_MAX_LENGTH} characters")
    # Line separators and half surrogates are refused too: neither survives being written to a file.
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in part):
        raise UriError(text, "has a control character")
    if part != part.strip():
        raise UriError(text, "has spaces around it")


def _file(text: str, rest: str, *, pattern: bool) -> Uri:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise UriError(text, "names a host; a local file has three slashes, file:///PATH")
    try:
        path = unquote("/" + path, errors="strict")
    except UnicodeDecodeError:
        raise UriError(text, "has % escapes that are not UTF-8") from None
    return _local(text, path, pattern=pattern)


def _local(text: str, path: str, *, pattern: bool) -> Uri:
    start, _, below = path.partition("/")
    try:
        if start == "~":
            path = f"{_literal(os.path.expanduser('~'), pattern)}/{below}"
        elif start.startswith("~"):
            raise UriError(text, "names another user's home; write the whole path")
        if not path.startswith("/"):
            path = f"{_literal(os.getcwd(), pattern)}/{path}"
    except OSError:
        raise UriError(text, "is relative, and the working directory is gone") from None
    # POSIX lets exactly two leading slashes mean something else; here they mean the root.
    return Uri("file", "", "/" + os.path.normpath(path).lstrip("/"))


def _literal(folder: str, pattern: bool) -> str:
    return glob.escape(folder) if pattern else folder


def _remote(text: str, scheme: str, rest: str) -> Uri:
    authority, _, path = rest.partition("/")
    if _has_credentials(scheme, authority, rest):
        raise UriError(text, "carries credentials; leave them to the environment of the program")
    if not authority and scheme in _NEEDS_AUTHORITY:
        raise UriError(text, f"names no bucket or host; write {scheme}://NAME/PATH")
    path = path.rstrip("/")
    if any(part in (".", "..") for part in path.split("/")):
        raise UriError(text, "has a '.' or '..' part, which a store does not resolve")
    return Uri(scheme, authority, path)


def _has_credentials(scheme: str, authority: str, rest: str) -> bool:
    user, colon, _ = authority.partition(":")
    if colon and "@" not in user:
        # A secret key may hold slashes, so the @ is looked for behind the authority too; but
        # `host:8020/a@b` is a port and a path.
        port = scheme not in ("s3", "gs") and _PORT.match(rest[len(user) + 1 :])
        return "@" in rest and not port
    return "@" in authority and scheme in _NO_USER


def mask_secrets(text: str) -> str:
    """``text`` without the user and password of a URI, and without secret-looking query values.

    Rather masks too much: everything before the last ``@`` goes if there is a colon in it. Linear
    in the length of ``text``.
    """
    head, at, tail = text.rpartition("@")
    if at and not text.startswith(_LOCAL_STARTS):
        match = _SCHEME.match(head)
        scheme = match[0] if match and match[2] else ""
        if ":" in head[len(scheme) :] or scheme.partition(":")[0].lower() in _NO_USER:
            text = f"{scheme}***@{tail}"
    if "?" not in text:
        return text
    return "".join(_mask_parameter(part) for part in re.split(r"([?&;])", text))


def _mask_parameter(part: str) -> str:
    name, equals, _ = part.partition("=")
    return f"{name}=***" if equals and _SECRET_PARAMETER.search(name) else part
