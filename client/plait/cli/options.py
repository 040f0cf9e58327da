"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from plait.errors import SourceMissing, SpecInvalid

if TYPE_CHECKING:
    from plait.spec import MergeSpec
    from plait.spec_storage import StorageSpec
    from plait_service.budget import Budget
    from plait_service.prepare import Prepared

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)
debug_option = click.option("--debug", is_flag=True, help="Show a traceback with an error.")


storage_option = click.option(
    "--storage-of",
    "storage_of",
    type=click.Path(),
    metavar="SPEC",
    help="Speak to stores as this spec's storage says.",
)


def read_storage(path: str | None) -> StorageSpec | None:
    """The ``storage`` of a spec; None without one, for what the environment says."""
    return None if path is None else read_spec(path, ()).storage


class Size(click.ParamType[int]):
    """``4GB``, ``512MiB``, or a number of bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes, or a usage error."""
        from plait.sizes import parse_size

        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def _label(value: str) -> tuple[str, str]:
    """KEY=VALUE as a node's label."""
    from plait.spec_resources import is_label

    key, equals, wanted = value.partition("=")
    if not equals or not is_label(key, wanted):
        raise click.BadParameter(f"{value!r} is no label: write KEY=VALUE, as in ray.io/market-type=spot")
    return key, wanted


_CLUSTER_OPTIONS: tuple[Any, ...] = (
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda _context, _option, values: dict(map(_label, values)),
        help="What nodes of the cluster need to get a worker; may be given several times.",
    ),
    click.option(
        "--worker-cpus",
        "cpus",
        type=click.IntRange(min=1),
        help="Processors of each worker on a cluster; default: all of its node's.",
    ),
    click.option(
        "--address",
        metavar="auto|local|HOST:PORT",
        help="Merge on this Ray cluster (local: a private one); default: in this process, in a Ray job auto.",
    ),
)


def cluster_options(function: F) -> F:
    """--address, --worker-cpus, --label: where a merge runs."""
    decorated: Any = function
    for decorate in _CLUSTER_OPTIONS:
        decorated = decorate(decorated)
    return cast(F, decorated)


_SPEC_OPTIONS: tuple[Any, ...] = (
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Units side by side; default: one a processor, two for stores over a network. "
        "On a cluster: workers; default: one a node.",
    ),
    click.option(
        "--memory",
        type=Size(),
        help="Most memory for buffers (of each worker); default: a quarter of what is free, at most 4GB.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace what lies at the output, whoever made it."),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override the spec: method.resample=2."
    ),
    click.argument("spec", type=click.Path()),
)


def spec_options(function: F) -> F:
    """SPEC, --set, --overwrite, --memory, --workers: what a merge is and may use."""
    decorated: Any = function
    for decorate in _SPEC_OPTIONS:
        decorated = decorate(decorated)
    return cast(F, decorated)


def read_spec(place: str, overrides: tuple[str, ...], *, here: bool = True) -> MergeSpec:
    """The spec in a file, on standard input for ``-``, in an object store, or, from ``{`` on, inline.

    Args:
        here: whether it is to be merged here; a service checks the options of the method itself, and may
            know others.

    Raises:
        SourceMissing: there is none.
        PlanRejected: with everything that is wrong with it.
    """
    from plait.spec import load_spec

    text, name = spec_text(place)
    if not here:
        return load_spec(text, name=name, overrides=overrides)
    from plait_workers.methods import METHODS

    return load_spec(text, name=name, overrides=overrides, methods=METHODS)


_HINTS = {"spec": "Name the merge.yaml to run", "schedule": "Name the YAML file that describes the schedule"}
_MOST = 1 << 20
"""Bytes of a spec; whoever reads it says so if there are more."""


def spec_text(place: str, *, kind: str = "spec") -> tuple[bytes, str]:
    """The bytes of a spec in any of these places, and what errors call it.

    Args:
        kind: what is read, ``spec`` or ``schedule``.
    """
    if place.lstrip().startswith("{"):
        return place.encode(), f"the {kind}"
    if place == "-":
        return sys.stdin.buffer.read(_MOST + 1), "standard input"
    if "://" in place:
        return _stored_text(place, kind), place
    try:
        with open(place, "rb") as file:
            return file.read(_MOST + 1), place
    except FileNotFoundError:
        raise _nothing(place, kind) from None
    except OSError as error:
        raise SpecInvalid(f"the {kind} cannot be read", where=place, found=error.strerror) from None


def _stored_text(place: str, kind: str) -> bytes:
    from plait.uri import UriError, parse_uri
    from plait_workers.storage.registry import open_store

    folder, _, name = place.rpartition("/")
    try:
        text = open_store(parse_uri(folder)).get(name, limit=_MOST)
    except UriError as error:
        raise SpecInvalid(f"the {kind} cannot be read", where=place, found=error.reason) from None
    if text is None:
        raise _nothing(place, kind)
    return text


def _nothing(place: str, kind: str) -> SourceMissing:
    return SourceMissing(f"no such {kind}", where=place, hint=_HINTS[kind])


def prepare_with_budget(
    spec: MergeSpec, memory: int | None, workers: int | None, *, on_cluster: bool = False
) -> tuple[Prepared, Budget]:
    """Plan a merge and fit it into memory; what the options do not say the spec's ``resources`` do.

    On a cluster the budget is that of one thread: what its driver may take, and the least of a worker.
    """
    from plait_service.budget import budget_of, default_memory, default_threads
    from plait_service.prepare import prepare

    prepared = prepare(spec)
    memory = spec.resources.memory if memory is None else memory
    workers = 1 if on_cluster else workers or spec.resources.workers
    budget = budget_of(
        prepared.plan.job,
        prepared.output,
        memory=default_memory() if memory is None else memory,
        threads=workers or default_threads(remote=prepared.is_remote),
        stores=prepared.stores,
    )
    return prepared, budget
