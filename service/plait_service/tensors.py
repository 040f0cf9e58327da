"""Which tensors the result has and how each is made: pure, from headers alone.

All that is wrong is reported at once. Two million headers' entries (K = 20 x 100,000 tensors) must
stay cheap, so sources that agree with the first one as a whole are not looked at tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import numpy.typing as npt

from plait.errors import PlaitError, TensorMismatch
from plait_workers.checkpoint.dtypes import DTYPES, Dtype
from plait_workers.checkpoint.model import Checkpoint
from plait_workers.checkpoint.quantized import is_quantized, quantized_names
from plait_workers.checkpoint.tied import tied_group
from plait_workers.job import Action, OutTensor
from plait_workers.methods.base import Method
from plait_workers.working import working_dtype

SHOWN = 20
"""How many names an error lists before it counts the rest."""


@dataclass(kw_only=True)
class Matched:
    """The tensors of the result and where each source has them.

    ``rows`` is (sources, tensors): the tensor's row in a source's checkpoint, or -1. ``twins`` are
    further copies (source, row) of a tied tensor. ``notes`` are worth a line in the plan.
    """

    tensors: list[OutTensor] = field(default_factory=list)
    rows: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    twins: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    problems: list[PlaitError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match_tensors(
    *,
    models: Sequence[Checkpoint],
    base: Checkpoint | None,
    method: Method,
    dtype: str,
    keep_base: bool,
) -> Matched:
    """Match the sources' tensors by name.

    Args:
        models: K sub-models; the first one gives the order.
        base: the base, if the spec names one.
        method: decides which dtypes are merged and whether the base is looked at.
        dtype: "auto", or the dtype of every float tensor of the result, in lower case.
        keep_base: copy tensors of the base alone instead of refusing them.
    """
    matched = Matched()
    aliases = _aliases(models, base)
    sources = [*models, *([base] if base else [])]
    alike = _alike(sources)
    distinct = sorted(set(alike))
    by_layout = {index: _rows_by_name(sources[index], aliases) for index in distinct}
    columns = [by_layout[index] for index in alike]
    names = _common_names(models, columns[: len(models)], matched)
    base_only = _base_only(base, columns, names, keep_base, matched)
    quantized = set[str]().union(*(quantized_names(source) for source in _by_config(sources, alike)))
    matched.rows = np.full((len(columns), len(names) + len(base_only)), -1, np.int32)
    rows_of = {index: [by_layout[index].get(name, (-1,))[0] for name in names] for index in distinct}
    for index, layout in enumerate(alike):
        matched.rows[index, : len(names)] = rows_of[layout]
    _find_twins(matched, sources, columns, names, set(aliases.values()))
    # Models that are laid out alike are looked at once.
    seen = [index for index in distinct if index < len(models)]
    builder = _Builder(
        models=[models[index] for index in seen], base=base, method=method, dtype=dtype, matched=matched
    )
    looked_at = matched.rows[[*seen, *range(len(models), len(sources))], : len(names)].T.tolist()
    for name, rows in zip(names, looked_at, strict=True):
        matched.tensors.append(builder.tensor(name, rows, name in quantized))
    for offset, name in enumerate(base_only):
        row = columns[-1][name][0]
        matched.rows[-1, len(names) + offset] = row
        assert base is not None
        matched.tensors.append(_copied(name, base.dtypes[row], base.shapes[row], Action.BASE, True))
    builder.report()
    return matched


def _alike(sources: Sequence[Checkpoint]) -> list[int]:
    """For each source, the first one that has the same tensors, dtypes and shapes in the same order."""
    first: list[int] = []
    for index, source in enumerate(sources):
        first.append(
            next(
                (
                    other
                    for other in dict.fromkeys(first)
                    if source.names == sources[other].names
                    and source.dtypes == sources[other].dtypes
                    and source.shapes == sources[other].shapes
                ),
                index,
            )
        )
    return first


def _by_config(sources: Sequence[Checkpoint], alike: Sequence[int]) -> list[Checkpoint]:
    """One source of each layout, and all whose config.json may add to what the names tell."""
    return [
        source
        for index, (source, layout) in enumerate(zip(sources, alike, strict=True))
        if index == layout or is_quantized(source)
    ]


def _find_twins(
    matched: Matched,
    sources: Sequence[Checkpoint],
    columns: Sequence[dict[str, tuple[int, ...]]],
    names: Sequence[str],
    tied: set[str],
) -> None:
    """Note where sources store a tied tensor more than once; copies must have one dtype and shape."""
    for at, name in enumerate(names):
        if name not in tied:
            continue
        copies = [(index, row) for index, column in enumerate(columns) for row in column.get(name, ())[1:]]
        if copies:
            matched.twins[at] = tuple(copies)
        for index, row in copies:
            source, own = sources[index], columns[index][name][0]
            found, wanted = (f"{source.dtypes[each].name} {list(source.shapes[each])}" for each in (row, own))
            if found != wanted:
                matched.problems.append(
                    TensorMismatch(
                        "weights that config.json ties together differ within one model",
                        where=f"{source.uri}: {source.names[row]}",
                        expected=f"{wanted}, as {source.names[own]} has",
                        found=found,
                    )
                )


def _aliases(models: Sequence[Checkpoint], base: Checkpoint | None) -> dict[str, str]:
    """Copies of a tied weight, by the name under which the group is stored."""
    group = tied_group(models, base)
    if group is None:
        return {}
    name, copies = group
    return dict.fromkeys(copies, name)


def _rows_by_name(source: Checkpoint, aliases: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Rows by the result's names; a tied group's own name before its copies."""
    found: dict[str, tuple[int, ...]] = {name: (row,) for name, row in source.rows.items()}
    for copy, name in sorted(aliases.items()):
        if copy in found:
            found[name] = found.get(name, ()) + found.pop(copy)
    return found


def _common_names(
    models: Sequence[Checkpoint], columns: Sequence[dict[str, tuple[int, ...]]], matched: Matched
) -> list[str]:
    """Names that all sub-models have, in the order of the first one's files; the others are problems."""
    first = columns[0]
    order = sorted(first, key=lambda name: first[name][0])
    for model, column in zip(models[1:], columns[1:], strict=True):
        if column is first or column.keys() == first.keys():
            continue
        for missing, present, where in (
            (first.keys() - column.keys(), models[0].uri, model.uri),
            (column.keys() - first.keys(), model.uri, models[0].uri),
        ):
            if missing:
                matched.problems.append(
                    TensorMismatch(
                        f"tensors that {present} has are missing",
                        where=where,
                        found=listed(sorted(missing)),
                        hint="All sub-models must have the same tensors",
                    )
                )
    return (
        [name for name in order if all(name in column for column in columns)] if matched.problems else order
    )


def _base_only(
    base: Checkpoint | None,
    columns: Sequence[dict[str, tuple[int, ...]]],
    names: Sequence[str],
    keep_base: bool,
    matched: Matched,
) -> list[str]:
    if base is None:
        return []
    known = set[str]().union(*columns[:-1])
    alone = [name for name in columns[-1] if name not in known]
    lacking = [name for name in names if name not in columns[-1]]
    if lacking:
        matched.notes.append(f"not in the base, so merged without resampling: {listed(lacking)}")
    if alone and keep_base:
        matched.notes.append(f"kept from the base alone: {listed(alone)}")
        return alone
    if alone:
        matched.problems.append(
            TensorMismatch(
                "the base has tensors that no sub-model has",
                where=base.uri,
                found=listed(alone),
                hint="Say `on_missing: keep-base` to copy them",
            )
        )
    return []


def listed(names: Iterable[str]) -> str:
    """Names for a message, so many that they can be read."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _copied(name: str, dtype: Dtype, shape: tuple[int, ...], action: Action, uses_base: bool) -> OutTensor:
    return OutTensor(
        name=name,
        shape=shape,
        dtype=dtype,
        working=dtype,
        action=action,
        uses_base=uses_base,
        elements=prod(shape),
    )


class _Builder:
    """Decides tensor by tensor, and collects what is wrong by its cause."""

    def __init__(
        self,
        *,
        models: Sequence[Checkpoint],
        base: Checkpoint | None,
        method: Method,
        dtype: str,
        matched: Matched,
    ) -> None:
        self._sources = [*models, *([base] if base else [])]
        self._num_models = len(models)
        self._has_base = base is not None
        self._method = method
        self._dtype = None if dtype == "auto" else DTYPES[dtype.upper()]
        self._matched = matched
        self._shapes: list[str] = []
        self._dtypes: list[str] = []

    def tensor(self, name: str, rows: Sequence[int], quantized: bool) -> OutTensor:
        present = [(source, row) for source, row in zip(self._sources, rows, strict=True) if row >= 0]
        shape = present[0][0].shapes[present[0][1]]
        dtype = present[0][0].dtypes[present[0][1]]
        if any(source.shapes[row] != shape for source, row in present):
            self._shapes.append(
                f"{name}: {_by_source(present, lambda source, row: list(source.shapes[row]))}"
            )
        with_base = self._has_base and rows[-1] >= 0 and self._method.needs_base
        compared = present if with_base else present[: self._num_models]
        dtypes = [source.dtypes[row] for source, row in compared]
        if not quantized and all(self._method.can_merge(each) for each in dtypes):
            merged = self._merged(name, shape, dtypes, with_base)
            if merged is not None:
                return merged
        elif all(each == dtype for each in dtypes):
            copied = _copied(name, dtype, shape, Action.IDENTICAL, with_base)
            if not quantized:
                return copied
            return replace(copied, quantized=True)
        self._dtypes.append(f"{name}: {_by_source(compared, lambda source, row: source.dtypes[row].name)}")
        return _copied(name, dtype, shape, Action.IDENTICAL, with_base)

    def _merged(
        self, name: str, shape: tuple[int, ...], dtypes: list[Dtype], with_base: bool
    ) -> OutTensor | None:
        working = working_dtype(dtypes[: self._num_models])
        if working is None:
            return None
        if with_base and dtypes[-1] != working and not (dtypes[-1].kind == working.kind == "float"):
            return None
        output = self._dtype if self._dtype is not None and working.kind == "float" else working
        return OutTensor(
            name=name,
            shape=shape,
            dtype=output,
            working=working,
            action=Action.MERGE,
            uses_base=with_base,
            elements=prod(shape),
        )

    def report(self) -> None:
        """Turn what was collected into problems: one a cause, with all its tensors."""
        for found, what in ((self._shapes, "shapes differ"), (self._dtypes, "dtypes cannot be merged")):
            if found:
                self._matched.problems.append(
                    TensorMismatch(f"{len(found)} tensor(s) whose {what}", found="; ".join(found[:SHOWN]))
                )


def _by_source(present: Sequence[tuple[Checkpoint, int]], value: Callable[[Checkpoint, int], object]) -> str:
    seen: dict[str, str] = {}
    for source, row in present:
        seen.setdefault(str(value(source, row)), source.uri)
    return ", ".join(f"{what} in {uri}" for what, uri in seen.items())
