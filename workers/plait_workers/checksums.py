"""CRCs of bytes that are read in any order: each range has its own, and neighbours' are joined.

A CRC of a and one of b give that of a + b in a microsecond, so whole files are verified by workers that
each saw a part of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from awscrt import checksums

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """A CRC.

    Args:
        size: bytes of a checksum.
        update: (data, checksum so far) -> checksum.
        combine: (checksum of a, checksum of b, bytes of b) -> checksum of a + b.
    """

    size: int
    update: Callable[[Buffer, int], int]
    combine: Callable[[int, int, int], int]

    def hexadecimal(self, value: int) -> str:
        """A checksum as text."""
        return f"{value:0{2 * self.size}x}"


ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "crc64nvme": Algorithm(size=8, update=checksums.crc64nvme, combine=checksums.combine_crc64nvme),
    "crc32c": Algorithm(size=4, update=checksums.crc32c, combine=checksums.combine_crc32c),
    "crc32": Algorithm(size=4, update=checksums.crc32, combine=checksums.combine_crc32),
}
"""By name, as stores and manifests write it; the strongest first."""

DEFAULT: Final = "crc64nvme"
"""What is computed where the store keeps nothing to compare with."""
