"""Which service, and with which token: from arguments, the environment, or a file of profiles.

::

    # ~/.config/plait/config.toml, readable by its owner alone
    [default]
    url = "https://plait.example.org"
    token_file = "~/.config/plait/token"

    [staging]
    url = "https://plait.staging.example.org"
    token = "..."
    ca_file = "/etc/ssl/staging.pem"
"""

from __future__ import annotations

import ipaddress
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from plait.errors import SpecInvalid

DEFAULT_URL: Final = "http://127.0.0.1:8421"
_KEYS: Final[Mapping[str, type]] = {
    "url": str,
    "token": str,
    "token_file": str,
    "ca_file": str,
    "insecure": bool,
}
_MOST: Final = 1 << 16
"""Bytes of a file of profiles, or of a token."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A service, and who asks it.

    Args:
        url: without a slash at its end.
        token: None where the service asks for none; in no repr.
        insecure: send the token over plain HTTP to other machines, too.
        ca_file: certificates to trust, in place of the usual ones.

    Raises:
        SpecInvalid: no URL of a service; a token that no header can carry, or that others would see.
    """

    url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    ca_file: str | None = None

    def __post_init__(self) -> None:
        parts = _checked_url(self.url)
        object.__setattr__(self, "url", self.url.rstrip("/"))
        if self.token is None:
            return
        if not self.token or not all("!" <= character <= "~" for character in self.token):
            raise SpecInvalid(
                "the token of the service", expected="printable ASCII without spaces, not empty"
            )
        if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not self.insecure:
            raise SpecInvalid(
                "a token is not sent over plain HTTP, where others can read it",
                where=self.url,
                hint="Use https://, or accept it with PLAIT_INSECURE=1 or insecure = true in the profile",
            )

    @property
    def host(self) -> str:
        """Without brackets and port."""
        return urlsplit(self.url).hostname or ""


def find_profile(
    url: str | None = None,
    token: str | None = None,
    name: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Profile:
    """The profile to use. Arguments come first, then the environment, then the file.

    A profile that ``name`` chooses is taken whole: ``PLAIT_URL`` and ``PLAIT_TOKEN`` do not count beside it.
    The file's token goes to the URL that stands beside it, and to no other.

    Args:
        url, token: instead of what is found.
        name: a table of the file; ``PLAIT_PROFILE``, or ``default``, if absent.
        environment: ``PLAIT_URL``, ``PLAIT_TOKEN``, ``PLAIT_PROFILE``, ``PLAIT_INSECURE``,
            ``XDG_CONFIG_HOME``.

    Raises:
        SpecInvalid: there is no such profile; the file is wrong, or others can read the token in it.
    """
    wanted = name or environment.get("PLAIT_PROFILE")
    given_url = url or (environment.get("PLAIT_URL") if name is None else None)
    given_token = token or (environment.get("PLAIT_TOKEN") if name is None else None)
    insecure = environment.get("PLAIT_INSECURE", "").lower() in {"1", "true", "yes"}
    table: Mapping[str, Any] = {}
    # What is given in full needs no file: one that is broken is then no reason to fail.
    if wanted is not None or given_url is None or given_token is None:
        table = _table(config_file(environment), wanted)
    there = table.get("url", DEFAULT_URL)
    if given_url is not None and given_url.rstrip("/") != there.rstrip("/"):
        return Profile(url=given_url, token=given_token, insecure=insecure)
    return Profile(
        url=there,
        token=given_token or _token(table),
        insecure=insecure or table.get("insecure", False),
        ca_file=_home(table["ca_file"]) if "ca_file" in table else None,
    )


def config_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where profiles are looked for."""
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME", "~"), ".config")
    return Path(_home(base)) / "plait" / "config.toml"


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine; of names, localhost alone is sure to."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_url(text: str) -> SplitResult:
    wanted = "http://HOST:PORT or https://HOST, maybe with a path"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise SpecInvalid("the URL of the service", expected=wanted) from None
    if "@" in parts.netloc:
        raise SpecInvalid("the URL of the service carries credentials", hint="Use a token: PLAIT_TOKEN")
    clean = all("!" <= character <= "~" for character in text)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.query
        or parts.fragment
        or not clean
    ):
        raise SpecInvalid("the URL of the service", expected=wanted, found=repr(text.partition("?")[0][:80]))
    return parts


def _table(file: Path, wanted: str | None) -> Mapping[str, Any]:
    """One table of the file; nothing if no certain one is wanted and there is none."""
    text, is_private = _read(file)
    if text is None:
        if wanted is None:
            return {}
        raise SpecInvalid(f"no profile {wanted!r}", where=str(file), found="no such file")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = getattr(error, "lineno", None)
        raise SpecInvalid("no TOML", where=f"{file}:{line}" if line else str(file)) from None
    table = tables.get(wanted or "default")
    if table is None and wanted is None:
        return {}
    if not isinstance(table, dict):
        known = [name for name, each in tables.items() if isinstance(each, dict)]
        raise SpecInvalid(
            f"no profile {wanted or 'default'!r}",
            where=str(file),
            hint=f"There are {', '.join(known) or 'none'}",
        )
    _check(table, f"{file}, [{wanted or 'default'}]")
    if "token" in table and not is_private:
        raise _exposed(file)
    return table


def _check(table: Mapping[str, Any], where: str) -> None:
    for key, value in table.items():
        if key not in _KEYS:
            raise SpecInvalid(f"unknown key {key!r}", where=where, hint=f"There are {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]):
            wanted = "true or false" if _KEYS[key] is bool else "text"
            raise SpecInvalid(f"the value of {key!r}", where=where, expected=wanted)
    if "token" in table and "token_file" in table:
        raise SpecInvalid("both token and token_file", where=where, hint="Keep one of them")


def _token(table: Mapping[str, Any]) -> str | None:
    if "token_file" not in table:
        token: str | None = table.get("token")
        return token
    file = Path(_home(table["token_file"]))
    text, is_private = _read(file)
    if text is None:
        raise SpecInvalid("the token's file", where=str(file), found="no such file")
    if not is_private:
        raise _exposed(file)
    return text.strip()


def _read(file: Path) -> tuple[str | None, bool]:
    """What a file says, None without one; and whether its owner alone can read it."""
    try:
        with open(file, "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            return opened.read(_MOST).decode(), not mode & (stat.S_IRWXG | stat.S_IRWXO)
    except (FileNotFoundError, NotADirectoryError):
        return None, True
    except UnicodeDecodeError:
        raise SpecInvalid("no text in UTF-8", where=str(file)) from None
    except OSError as error:
        raise SpecInvalid("the file cannot be read", where=str(file), found=error.strerror) from None


def _exposed(file: Path) -> SpecInvalid:
    return SpecInvalid(
        "others can read the token in this file", where=str(file), hint=f"Run: chmod 600 {file}"
    )


def _home(path: str) -> str:
    return os.path.expanduser(path)
