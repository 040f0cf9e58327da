"""What fsspec's file systems say of a file, each in its own words."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from plait_workers.storage.base import ObjectInfo

Info = Mapping[str, Any]

# In this order. A generation counts the bytes, where the ETag of the same object also counts labels (gs).
# An ETag is made anew for every write (az, http). A hash is of the bytes themselves (hf).
_TAGS: Final = ("generation", "etag", "ETag", "xet_hash", "blob_id", "Content-MD5", "Digest", "checksum")
# Where nothing better is kept (sftp, hdfs, memory): all times that can be had, beside the size.
_TIMES: Final = ("mtime", "modified", "modificationTime", "last_modified", "Last-Modified", "created", "ino")
_MODIFIED: Final = ("mtime", "last_modified", "Last-Modified", "modified", "created")


def version_of(info: Info, commit: str | None = None) -> str:
    """What changes whenever a file's bytes may have changed; empty if the store tells nothing such.

    Args:
        info: as ``fs.info`` gives it.
        commit: that the file was looked at in: a file of another commit is another version, even with
            the same bytes, so that no merge mixes files of two commits.
    """
    size = info.get("size")
    if commit is not None and info.get("blob_id"):
        return f"{info['blob_id']}@{commit}"
    for name in _TAGS:
        tag = info.get(name)
        # A weak ETag stays when the server holds the new bytes to be as good as the old ones.
        if tag and not str(tag).startswith("W/"):
            return f"{name.lower()}-{str(tag).strip(chr(34))}-{size}"
    # Listings and looks write times differently, so they are compared as numbers. A file that is written
    # twice within one tick of the store's clock, with as many bytes, is not told apart.
    times = [f"{name}-{_number(info[name])}" for name in _TIMES if info.get(name) is not None]
    return "-".join([*times, str(size)]) if times else ""


def _number(value: Any) -> str:
    seconds = _seconds(value)
    return str(value) if seconds is None else f"{seconds:.6f}"


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        with suppress(ValueError):
            value = parsedate_to_datetime(value) if "," in value else datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None


def modified_of(info: Info) -> float:
    """When a file was last written, in seconds; 0 where the store does not tell."""
    found = (_seconds(info.get(name)) for name in _MODIFIED)
    return next((seconds for seconds in found if seconds is not None), 0.0)


def checksums_of(info: Info) -> dict[str, str]:
    """The checksums of the whole file's bytes that the store keeps, in hexadecimal."""
    found: dict[str, Any] = {"crc32c": info.get("crc32c"), "md5": info.get("md5Hash")}
    settings = info.get("content_settings")
    found["md5"] = found["md5"] or getattr(settings, "content_md5", None)
    lfs = info.get("lfs")
    digits = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)
    checksums = {"sha256": str(digits)} if digits else {}
    for name, value in found.items():
        if isinstance(value, bytes | bytearray):
            checksums[name] = value.hex()
        elif isinstance(value, str):
            with suppress(binascii.Error):
                checksums[name] = base64.b64decode(value, validate=True).hex()
    return checksums


def object_info(key: str, info: Info, commit: str | None) -> ObjectInfo:
    """A file as every store describes it; ``info`` has a size."""
    metadata = info.get("metadata")
    return ObjectInfo(
        key=key,
        size=int(info["size"]),
        version=version_of(info, commit),
        modified=modified_of(info),
        metadata={str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, Mapping) else {},
        checksums=checksums_of(info),
    )
