"""The merge spec: ``merge.yaml`` and ``MergeSpec``, all that a merge is.

::

    models:                                        # in this order
      - s3://runs/order-00
      - {uri: s3://runs/order-01, weight: 2.0}
      - {glob: "s3://runs/order-0[2-9]"}
    base: s3://models/llama-2-7b
    method: {name: select, resample: 4}
    output: s3://models/merged

Reading order: ``spec_model`` (the keys), ``spec_clashes`` (how they agree), ``spec_problems`` (what
errors say), ``spec_overrides`` (``--set``), and here, what brings them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError

from plait.errors import PlanRejected, SpecInvalid
from plait.sizes import format_size, parse_size
from plait.spec_clashes import clashes
from plait.spec_model import MergeSpec, MethodSpec, Source, SourceGlob
from plait.spec_overrides import apply_overrides, flag
from plait.spec_problems import Finding, dotted, findings, nearest, shown
from plait.spec_resources import ResourcesSpec
from plait.spec_storage import StorageSpec, StoreOptions
from plait.yaml_source import Path, Plain, YamlSource, read_yaml

__all__ = [
    "MergeSpec",
    "MethodSpec",
    "Source",
    "SourceGlob",
    "format_size",
    "load_spec",
    "parse_size",
]

MAX_PROBLEMS = 100

Methods = Mapping[str, type[BaseModel]]


def load_spec(
    text: str | bytes,
    *,
    name: str = "merge.yaml",
    overrides: Sequence[str] = (),
    methods: Methods | None = None,
) -> MergeSpec:
    """The valid spec that ``text`` says, or all that is wrong with it, at once.

    Reads no file and asks no store; the time is linear in the text, about a second for the most
    models with PyYAML's slow parser.

    Args:
        text: YAML.
        name: what errors call the text, as in ``merge.yaml:7``.
        overrides: ``DOTTED.PATH=VALUE``, put over the text in this order; an error in what one of
            them set names it instead of a line.
        methods: the options of each known method, as a model with a field ``name``. With it, an
            unknown method or option is an error, and the result holds every option. Without it,
            options may be any plain data.

    Raises:
        PlanRejected: with a ``SpecInvalid`` for each problem, in the order of their lines; of more
            than 100, the first 100 and one that says so.
    """
    try:
        source = read_yaml(text, name=name)
    except SpecInvalid as problem:
        raise PlanRejected([problem]) from None
    data, paths, problems = apply_overrides(source.data, overrides)
    spec, found = _validate(data, methods)
    places = _Places(source, name, paths)
    problems += [places.problem(finding) for finding in sorted(found, key=places.order)]
    if len(problems) > MAX_PROBLEMS:
        more = SpecInvalid("reading the spec", where=name, found=f"more than {MAX_PROBLEMS} problems")
        problems = [*problems[:MAX_PROBLEMS], more]
    if problems or spec is None:
        raise PlanRejected(problems)
    return spec


def _validate(data: Plain, methods: Methods | None) -> tuple[MergeSpec | None, list[Finding]]:
    if not isinstance(data, dict):
        return None, [Finding(path=(), expected="a mapping of keys to values", found=shown(data))]
    method, of_method = _method(data.get("method"), methods)
    found = clashes(data) + of_method
    try:
        spec = MergeSpec.model_validate(data)
    except ValidationError as error:
        # The spec's own clashes have no place of their own (), and are here already; where the
        # method's model found something too, it knows better.
        said = {(), *(finding.path for finding in of_method)}
        found += [finding for finding in findings(error, data, _keys(data)) if finding.path not in said]
        return None, found
    return (spec if method is None else spec.model_copy(update={"method": method})), found


def _method(data: Plain, methods: Methods | None) -> tuple[MethodSpec | None, list[Finding]]:
    """The method with all its options, if the registry knows it, and what is wrong with it."""
    if isinstance(data, str):
        hint = (
            f"Write {{name: {data}}}"
            if methods is None or data in methods
            else nearest(data, sorted(methods))
        )
        return None, [_of_method("a mapping of keys to values", shown(data), hint)]
    if not isinstance(data, dict) or methods is None:
        return None, []
    name, known = data.get("name"), sorted(methods)
    if not isinstance(name, str) or name not in methods:
        hint = nearest(name, known) if isinstance(name, str) else None
        found = shown(name) if "name" in data else "it missing"
        return None, [_of_method(f"one of {', '.join(known)}", found, hint, "name")]
    try:
        options = methods[name].model_validate(data).model_dump(mode="json")
    except ValidationError as error:
        keys = tuple(methods[name].model_fields)
        found_here = findings(error, data, lambda path: () if path else keys)
        return None, [replace(finding, path=("method", *finding.path)) for finding in found_here]
    return MethodSpec(**{**options, "name": name}), []


def _of_method(expected: str, found: str, hint: str | None, *below: str) -> Finding:
    return Finding(path=("method", *below), expected=expected, found=found, hint=hint)


def _keys(data: Mapping[str, Plain]) -> Callable[[Path], Sequence[str]]:
    """The valid keys of the mapping at a path of ``data``, the method's apart."""

    def keys(path: Path) -> Sequence[str]:
        if not path:
            return tuple(MergeSpec.model_fields)
        if path[0] == "resources":
            return tuple(ResourcesSpec.model_fields) if len(path) == 1 else ()
        if path[0] == "storage":
            return tuple((StorageSpec if len(path) == 1 else StoreOptions).model_fields)
        models = data.get("models")
        entry = models[int(path[1])] if isinstance(models, list) and len(path) == 2 else None
        given = {"uri", "glob"} & set(entry) if isinstance(entry, dict) else set()
        return (*sorted(given or {"uri", "glob"}), "weight")

    return keys


@dataclass(frozen=True, slots=True)
class _Places:
    """Where things of a spec stand, as a reader finds them: a line, or an override."""

    source: YamlSource
    name: str
    overrides: Sequence[Path]

    def override_of(self, path: Path) -> int | None:
        """The last override that set ``path``, or what it lies in, or that made it."""
        made = path not in self.source.lines
        setting = [
            number
            for number, set_path in enumerate(self.overrides)
            if path[: len(set_path)] == set_path or (made and path and set_path[: len(path)] == path)
        ]
        return setting[-1] if setting else None

    def order(self, finding: Finding) -> tuple[int, int]:
        number = self.override_of(finding.path)
        return (0, self.source.line_of(finding.path) or 1) if number is None else (1, number)

    def problem(self, finding: Finding) -> SpecInvalid:
        number = self.override_of(finding.path)
        line = self.source.line_of(finding.path) or 1
        where = f"{self.name}:{line}" if number is None else flag(self.overrides[number])
        return SpecInvalid(
            f"reading {dotted(finding.path)}",
            where=where,
            expected=finding.expected,
            found=finding.found,
            hint=finding.hint,
        )
