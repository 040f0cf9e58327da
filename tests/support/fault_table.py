"""What was tried against a merge and how it ended, as tables at the end of a test run.

Tests note their outcomes with ``record_property``, which also brings them from processes of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

PROPERTY = "faults"
S3 = "faults between the merge and S3"
CLUSTER = "what befell a merge on a cluster"
SERVICE = "jobs of a service that was killed again and again"


RecordProperty = Callable[[str, object], None]


def note(record_property: RecordProperty, rows: Iterable[tuple[str, str]], *, title: str = S3) -> None:
    """Put (fault, outcome) pairs on record for the table of this title."""
    record_property(PROPERTY, [[title, *row] for row in rows])


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of text: a fault a line, an outcome a column."""
    counts = Counter(rows)
    faults = sorted({fault for fault, _ in counts})
    outcomes = sorted({outcome for _, outcome in counts})
    width = max(len(fault) for fault in [*faults, "fault"])
    widths = [max(len(outcome), 6) for outcome in ["tried", *outcomes]]

    def line(name: str, cells: Iterable[object]) -> str:
        return "  ".join(
            [name.ljust(width), *(str(cell).rjust(size) for cell, size in zip(cells, widths, strict=True))]
        )

    def numbers(chosen: Iterable[str]) -> list[int]:
        by_outcome = [sum(counts[fault, outcome] for fault in chosen) for outcome in outcomes]
        return [sum(by_outcome), *by_outcome]

    lines = [line("fault", ["tried", *outcomes])]
    lines += [line(fault, numbers([fault])) for fault in faults]
    return [*lines, line("all", numbers(faults))]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that there is anything in."""
    rows = [
        (title, (fault, outcome))
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == PROPERTY
        for title, fault, outcome in value
    ]
    for title in sorted({title for title, _ in rows}):
        terminalreporter.section(title)
        for each in table(row for name, row in rows if name == title):
            terminalreporter.write_line(each)
