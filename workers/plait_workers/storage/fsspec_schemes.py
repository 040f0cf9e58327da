"""Which packages read which schemes, and what to say where one is missing."""

from __future__ import annotations

from typing import Final

from plait.errors import SpecInvalid

EXTRAS: Final = {"gs": "gs", "az": "az", "abfs": "az", "abfss": "az", "hf": "hf"}
"""Our extra by scheme."""


def hint_of(scheme: str) -> str:
    """What to look at when a file system cannot be made."""
    if EXTRAS.get(scheme) == "az":
        return "Set AZURE_STORAGE_ACCOUNT_NAME, or AZURE_STORAGE_CONNECTION_STRING"
    return f"Say in fsspec's configuration how {scheme}:// is reached"


def require(scheme: str, where: str) -> None:
    """Import what reads ``scheme``; opens nothing.

    Raises:
        SpecInvalid: fsspec knows no such scheme, or the package that serves it is not installed.
    """
    try:
        from fsspec.registry import get_filesystem_class, known_implementations
    except ImportError:
        raise SpecInvalid(
            f"{scheme}:// is read through fsspec, which is not installed",
            where=where,
            hint="pip install 'plait[cluster]'",
        ) from None
    try:
        get_filesystem_class(scheme)
    except ImportError:
        extra = EXTRAS.get(scheme)
        theirs = str(known_implementations.get(scheme, {}).get("err", ""))
        raise SpecInvalid(
            f"the package that reads {scheme}:// is not installed",
            where=where,
            hint=f"pip install 'plait[{extra}]'" if extra else theirs,
        ) from None
    except ValueError:
        raise SpecInvalid(
            "no store serves this kind of URI",
            where=where,
            expected="a local path, s3://, gs://, az://, hf:// or another scheme of fsspec's",
            found=scheme,
        ) from None
