"""What tests of schedules share."""

from __future__ import annotations

from tests.service.schedules.world import world

__all__ = ["world"]
