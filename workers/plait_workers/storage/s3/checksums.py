"""Checksums as S3 writes them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from plait_workers.checksums import ALGORITHMS

_FIELDS: Final = {name: f"Checksum{name.upper()}" for name in ALGORITHMS}


def to_base64(digits: str) -> str:
    """From hexadecimal digits, as we write checksums, to base 64."""
    return base64.b64encode(bytes.fromhex(digits)).decode()


def full_object(answer: Mapping[str, Any]) -> dict[str, str]:
    """The checksums of the whole object's bytes in an answer; those of lists of parts are left out."""
    found: dict[str, str] = {}
    if answer.get("ChecksumType") == "COMPOSITE":
        return found
    for name, field in _FIELDS.items():
        text = answer.get(field)
        if isinstance(text, str) and "-" not in text:
            try:
                digest = base64.b64decode(text, validate=True)
            except binascii.Error:
                continue
            if len(digest) == ALGORITHMS[name].size:
                found[name] = digest.hex()
    return found
