"""Sizes as people write them: ``5GB``, ``64 KiB``, ``1.5 GB``, or a plain number of bytes."""

from __future__ import annotations

import re
from fractions import Fraction

_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_UNITS = _DECIMAL | _BINARY
_UNITS_FOLDED = {unit.casefold(): factor for unit, factor in _UNITS.items()}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,12})?) ?([A-Za-z]+)?")
_LIMIT = 2**63  # no store counts further, and a longer number is a slip of the hand

SIZE_WORDS = "a size such as 5GB, 64KiB or a number of bytes"


def parse_size(text: str | int) -> int:
    """The exact number of bytes that ``text`` says, below 2**63.

    KB, MB, GB and TB are powers of 1000; KiB, MiB, GiB and TiB of 1024; a number alone is bytes.
    The case of a unit does not matter, and one space may stand before it.

    Args:
        text: such as ``"5GB"``, ``"1.5 GiB"``, ``"4096"`` or ``4096``.

    Raises:
        ValueError: it is no size, not a whole number of bytes, negative or too large.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = Fraction(text)
    else:
        match = _SIZE.fullmatch(text.strip(" ")) if isinstance(text, str) else None
        unit = match[2] or "B" if match else ""
        if match is None or unit.casefold() not in _UNITS_FOLDED:
            raise ValueError(f"no size: write a number and one of {', '.join(_UNITS)}")
        size = Fraction(match[1]) * _UNITS_FOLDED[unit.casefold()]
    if size.denominator != 1:
        raise ValueError("not a whole number of bytes")
    if not 0 <= size < _LIMIT:
        raise ValueError("not between 0 and 2**63 bytes")
    return int(size)


def format_size(n: int) -> str:
    """``n`` bytes with few digits: exact where at most four of them suffice, else rounded to three.

    What is exact is read back by :func:`parse_size` as ``n``.

    Args:
        n: a number of bytes, at least 0.
    """
    if n < 0:
        raise ValueError("a size is at least 0")
    exact = [
        (n * scale // factor, scale, unit)
        for scale in (1, 10, 100)
        for unit, factor in _UNITS.items()
        if n >= factor and n * scale % factor == 0
    ]
    # The fewest digits, and at most four: 12345 bytes are better read as 12.3 KB.
    digits, scale, unit = min(exact, default=(10_000, 1, ""))
    if digits < 10_000:
        return f"{_trim(Fraction(digits, scale))} {unit}"
    return rounded_size(n)


def rounded_size(n: int) -> str:
    """``n`` bytes with three digits, in powers of 1000: for sizes that stand beside each other."""
    units = list(_DECIMAL.items())
    for index, (unit, factor) in enumerate(units):
        value = Fraction(n, factor)
        digits = 2 if value < 10 else 1 if value < 100 else 0
        value = Fraction(round(value, digits))
        if value < 1000 or index == len(units) - 1:
            return f"{_trim(value)} {unit}"
    raise AssertionError("the last unit takes everything")


def _trim(value: Fraction) -> str:
    text = f"{float(value):.2f}"
    return text.rstrip("0").rstrip(".")
