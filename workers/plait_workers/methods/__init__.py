"""The merge methods, one file each, registered here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from plait_workers.methods.average import Average
from plait_workers.methods.base import Method
from plait_workers.methods.selection import Select

METHODS: Final[Mapping[str, type[Method]]] = {
    "select": Select,
    "average": Average,
}
"""Every method by the name that a spec calls it."""
