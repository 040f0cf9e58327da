"""``--set method.resample=2``: values of the command line, put into a spec's data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from plait.errors import SpecInvalid
from plait.spec_problems import dotted, shown
from plait.yaml_source import MAX_DEPTH, Path, Plain, read_value

_INDEX = re.compile(r"[0-9]{1,6}")


def apply_overrides(data: Plain, overrides: Sequence[str]) -> tuple[Plain, list[Path], list[SpecInvalid]]:
    """``data`` with each override in it, later ones last; ``data`` itself is changed.

    Mappings that are not there yet are made; lists are never lengthened.

    Args:
        data: of a spec.
        overrides: ``DOTTED.PATH=VALUE``, the value being a YAML scalar, ``[...]`` or ``{...}``.

    Returns:
        The data, the paths that were set, and what was wrong with the others.
    """
    paths: list[Path] = []
    problems: list[SpecInvalid] = []
    for override in overrides:
        try:
            data, path = _apply(data, override)
            paths.append(path)
        except SpecInvalid as problem:
            problems.append(problem)
    return data, paths, problems


def flag(path: Path) -> str:
    """How an error names the override of ``path``."""
    return f"--set {dotted(path)}"


def _apply(data: Plain, override: str) -> tuple[Plain, Path]:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise SpecInvalid(
            "reading an override",
            where="--set",
            expected="KEY=VALUE, as in method.resample=2",
            found=shown(override),
        )
    where = flag(tuple(keys))
    value = read_value(text, where=where)
    root: Plain = {} if data is None else data
    into: Plain = root
    path: Path = ()
    for key in keys[:-1]:
        slot = _slot(into, key, path, where)
        into, path = _below(into, slot, path), (*path, slot)
    slot = _slot(into, keys[-1], path, where)
    _put(into, slot, value)
    return root, (*path, slot)


def _slot(into: Plain, key: str, path: Path, where: str) -> str | int:
    """``key`` as what ``into`` is indexed with."""
    match into:
        case dict():
            return key
        case list() if _INDEX.fullmatch(key) and int(key) < len(into):
            return int(key)
        case list():
            wanted = f"an index below {len(into)} after {dotted(path)}" if into else "an item to set"
            raise SpecInvalid("setting a value", where=where, expected=wanted, found=shown(key))
    raise SpecInvalid(
        "setting a value",
        where=where,
        expected=f"{dotted(path)} to be a mapping or a list",
        found=shown(into),
    )


def _below(into: Plain, slot: str | int, path: Path) -> Plain:
    """What stands at ``slot``, made a mapping if there is nothing, or a model's bare URI."""
    child: Plain = None
    if isinstance(into, dict):
        child = into.get(str(slot))
    elif isinstance(into, list):
        child = into[int(slot)]
    if child is None or (path == ("models",) and isinstance(child, str)):
        child = {} if child is None else {"uri": child}
        _put(into, slot, child)
    return child


def _put(into: Plain, slot: str | int, value: Plain) -> None:
    if isinstance(into, dict):
        into[str(slot)] = value
    elif isinstance(into, list):
        into[int(slot)] = value
