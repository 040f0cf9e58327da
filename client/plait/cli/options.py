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


_SPEC_OPTIONS: tuple[Any, ...] = (
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Units side by side; default: one a processor, four for stores over a network.",
    ),
    click.option(
        "--memory",
        type=Size(),
        help="Most memory for buffers; default: a quarter of what is free, at most 4GB.",
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


def read_spec(path: str, overrides: tuple[str, ...]) -> MergeSpec:
    """The spec in a file, or on standard input for ``-``.

    Raises:
        SourceMissing: no such file.
        PlanRejected: with everything that is wrong with it.
    """
    from plait.spec import load_spec
    from plait_workers.methods import METHODS

    if path == "-":
        text = sys.stdin.buffer.read((1 << 20) + 1)
        return load_spec(text, name="standard input", overrides=overrides, methods=METHODS)
    try:
        with open(path, "rb") as file:
            text = file.read((1 << 20) + 1)
    except FileNotFoundError:
        raise SourceMissing("no such spec", where=path, hint="Name the merge.yaml to run") from None
    except OSError as error:
        raise SpecInvalid("the spec cannot be read", where=path, found=error.strerror) from None
    return load_spec(text, name=path, overrides=overrides, methods=METHODS)


def prepare_with_budget(spec: MergeSpec, memory: int | None, workers: int | None) -> tuple[Prepared, Budget]:
    """Plan a merge and fit it into memory."""
    from plait_service.budget import budget_of, default_memory, default_threads
    from plait_service.prepare import prepare

    prepared = prepare(spec)
    budget = budget_of(
        prepared.plan.job,
        prepared.output,
        memory=default_memory() if memory is None else memory,
        threads=workers or default_threads(remote=prepared.is_remote),
        stores=prepared.stores,
    )
    return prepared, budget
