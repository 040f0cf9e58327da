"""Sizes: what is read exactly, what is refused, and what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.sizes import format_size, parse_size

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5_000_000_000),
        ("5 GB", 5_000_000_000),
        (" 5gb ", 5_000_000_000),
        ("1.5GB", 1_500_000_000),
        ("64KiB", 65_536),
        ("1.5 GiB", 1_610_612_736),
        ("0.001 KB", 1),
        ("4096", 4096),
        (4096, 4096),
        ("0", 0),
        ("1TiB", 2**40),
    ],
)
def test_sizes_are_read_exactly(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GB",
        "-1",
        "-1GB",
        -1,
        "1.5",
        "1.0001KB",
        "5 G",
        "5Gb it",
        "1e9",
        "5  GB",
        "5_000",
        "\u0665GB",
        True,
        2**63,
    ],
)
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_the_error_lists_the_units() -> None:
    with pytest.raises(ValueError, match=r"KB, MB, GB, TB, KiB, MiB, GiB, TiB"):
        parse_size("5 apples")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1024, "1 KiB"),
        (65_536, "64 KiB"),
        (1_500_000_000, "1.5 GB"),
        (1_610_612_736, "1.5 GiB"),
        (123_456_789, "123 MB"),
        (12_345_678, "12.3 MB"),
        (999_999_999, "1 GB"),
    ],
)
def test_sizes_are_written_short(size: int, text: str) -> None:
    assert format_size(size) == text


def test_a_negative_size_is_not_written() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        format_size(-1)


@given(st.integers(1, 9_999), st.sampled_from(sorted(UNITS)))
def test_whole_numbers_of_a_unit_come_back(count: int, unit: str) -> None:
    size = count * UNITS[unit]
    assert parse_size(format_size(size)) == size
    assert parse_size(f"{count}{unit}") == size


@given(st.integers(0, 2**62))
def test_what_is_written_is_read_back_within_three_digits(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= size * 0.005


@given(st.text() | st.integers() | st.from_regex(r"[0-9.]{1,6} ?[kmgtKMGT]?i?[bB]?", fullmatch=True))
def test_any_text_is_a_size_or_a_value_error(text: str | int) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert 0 <= size < 2**63
