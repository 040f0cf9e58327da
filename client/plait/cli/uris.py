"""URIs as arguments."""

from __future__ import annotations

from plait.errors import SpecInvalid
from plait.uri import UriError, parse_uri


def checked_uri(text: str) -> str:
    """The canonical form.

    Raises:
        SpecInvalid: it is none.
    """
    try:
        return str(parse_uri(text))
    except UriError as error:
        raise SpecInvalid(f"not a URI: {error}") from None
