"""How many files a process may hold open."""

from __future__ import annotations

import resource
from typing import Final

MOST: Final = 1 << 16


def allow_many() -> None:
    """As many as the system lets this process have; systems begin with 1024.

    A merge holds up to 512 sources open, and every shard of a local output until it is complete.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
