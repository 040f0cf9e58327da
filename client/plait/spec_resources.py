"""Where a merge runs on a cluster: the spec's ``resources``, which has no bearing on a result's bytes.

::

    resources:
      workers: 4
      cpus: 8
      memory: 4GB
      labels: {ray.io/market-type: spot}

Options of the command go before it.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from plait.spec_fields import expected, size_of_at_least

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def is_label(key: str, value: str) -> bool:
    """Whether this can be a node's label, as Kubernetes and Ray have them; no operators."""
    prefix, slash, name = key.rpartition("/")
    return bool(
        _NAME.fullmatch(name)
        and (not slash or _PREFIX.fullmatch(prefix))
        and (not value or _NAME.fullmatch(value))
    )


def _labels(value: object) -> object:
    if isinstance(value, dict):
        for key, wanted in value.items():
            if not isinstance(key, str) or not isinstance(wanted, str) or not is_label(key, wanted):
                raise expected("labels of nodes, such as {ray.io/market-type: spot}")
    return value


class ResourcesSpec(BaseModel):
    """What the workers of a merge are; what is absent is decided from the cluster.

    Args:
        workers: how many. On a cluster if absent: one on each node that fits, also on those that join
            later. Without a cluster: units side by side.
        cpus: processors of each; if absent, all of a node's, shared if there are more workers than nodes.
        memory: bytes that the buffers of each may take.
        labels: what nodes must be labelled with to get a worker.
    """

    # Without the inputs in its messages, pydantic's own error cannot show a secret.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    cpus: Annotated[int, Field(ge=1, le=100_000)] | None = None
    memory: Annotated[int, size_of_at_least(1)] | None = None
    labels: Annotated[dict[str, str], BeforeValidator(_labels)] = {}

    def __hash__(self) -> int:
        return hash(self.model_dump_json())
