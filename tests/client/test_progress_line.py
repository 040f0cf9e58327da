"""What a merge says of itself without a terminal."""

from __future__ import annotations

from plait.cli.progress import progress_line
from plait_service.progress import Progress


def test_sizes_beside_each_other_are_in_units_of_one_kind() -> None:
    progress = Progress(
        total_bytes=268_435_456, resumed_bytes=0, done_bytes=149 << 20, shard="model.safetensors"
    )
    line = progress_line(progress, 2.0)
    assert line == "156 MB of 268 MB (58%), 78.1 MB/s, 1 s left, model.safetensors"


def test_before_anything_is_done() -> None:
    progress = Progress(total_bytes=1000, resumed_bytes=0, done_bytes=0, shard="")
    assert progress_line(progress, 0.0).startswith("0 B of 1 KB (0%), 0 B/s, time left unknown")
