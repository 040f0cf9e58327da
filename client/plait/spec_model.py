"""The data of a merge spec: what each key may hold. How the keys agree is in ``spec_clashes``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from plait.sizes import format_size, parse_size
from plait.spec_clashes import clashes
from plait.spec_fields import MAX_MODELS, Dtype, GlobText, Option, UriText, Weight, expected, size_of_at_least
from plait.spec_resources import ResourcesSpec
from plait.spec_storage import StorageSpec
from plait.uri import Uri, parse_glob, parse_uri

MIN_PART = 64 * 2**10
MIN_SHARD = 1000


class _Frozen(BaseModel):
    # Without the inputs in its messages, pydantic's own error cannot show a secret.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class Source(_Frozen):
    """One sub-model.

    Args:
        uri: the folder of the checkpoint, as it was written.
        weight: its share, finite and at least 0.
    """

    uri: UriText
    weight: Weight = 1.0

    @property
    def location(self) -> Uri:
        """The canonical place."""
        return parse_uri(self.uri)


class SourceGlob(_Frozen):
    """Sub-models by pattern, expanded when the merge is planned.

    Args:
        glob: a URI with ``*``, ``?`` or ``[...]``, each within one path segment.
        weight: the share of each sub-model that is found.
    """

    glob: GlobText
    weight: Weight = 1.0

    @property
    def location(self) -> Uri:
        """The canonical pattern."""
        return parse_glob(self.glob)


class MethodSpec(_Frozen):
    """A method's name and its options, which are read as attributes or from ``options``.

    The options are any plain data here; the registry that :func:`plait.spec.load_spec` is given
    checks them.

    Args:
        name: such as ``select`` or ``average``.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Option]

    name: Annotated[str, Field(min_length=1)]

    @property
    def options(self) -> dict[str, Any]:
        """All but the name."""
        return dict(self.__pydantic_extra__)


def _entry(value: object) -> object:
    if isinstance(value, str | PathLike):
        return {"uri": value}
    if isinstance(value, Mapping) and "uri" in value and "glob" in value:
        raise expected("either uri or glob in one entry, not both")
    return value


def _kind_of_entry(value: object) -> str | None:
    if isinstance(value, SourceGlob) or (isinstance(value, Mapping) and "glob" in value):
        return "<glob>"
    return "<uri>" if isinstance(value, Source | Mapping) else None


def _entries(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    if len(value) > MAX_MODELS:  # before each of them is looked at
        raise expected(f"at most {MAX_MODELS} models")
    return tuple(value)


# The tags stand in the places of pydantic's errors; no key of a spec looks like one.
Entry: TypeAlias = Annotated[
    Annotated[Source, Tag("<uri>")] | Annotated[SourceGlob, Tag("<glob>")],
    Discriminator(
        _kind_of_entry,
        custom_error_type="expected",
        custom_error_message="expected {what}",
        custom_error_context={"what": "a URI, {uri: ..., weight: ...} or {glob: ..., weight: ...}"},
    ),
    BeforeValidator(_entry),
]


class MergeSpec(_Frozen):
    """All that a merge is, but for the bytes of its sources. Immutable; equal specs are equal merges.

    Building one reads nothing and follows no link. Built directly, a wrong value is pydantic's
    ``ValidationError``; :func:`plait.spec.load_spec` reports all problems with lines and hints.

    Args:
        models: 1 to 4096 sub-models or globs, in this order; a URI alone stands for a ``Source``.
        base: the model that the sub-models were fine-tuned from, for methods that need it.
        method: name and options.
        output: the folder of the result.
        seed: of all random draws, from 0 to 2**64 - 1.
        dtype: of the result; ``auto`` is the sub-models'.
        shard_size: most bytes in one file of the result, at least 1 KB.
        part_size: bytes that one unit of work writes, at least 64 KiB; chosen by the planner if
            absent. Object stores take no part below 5 MiB but the last.
        on_missing: what to do about a tensor that only the base has.
        copy_from: the model whose small files the result gets; the first sub-model if absent.
        storage: how stores are spoken to; no part of what the result is.
        resources: where it runs on a cluster; no part of what the result is.
    """

    models: Annotated[
        tuple[Entry, ...],
        BeforeValidator(_entries),
        Field(min_length=1),
    ]
    base: UriText | None = None
    method: MethodSpec
    output: UriText
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    dtype: Dtype = "auto"
    shard_size: Annotated[int, size_of_at_least(MIN_SHARD)] = 5 * 10**9
    part_size: Annotated[int, size_of_at_least(MIN_PART)] | None = None
    on_missing: Literal["error", "keep-base"] = "error"
    copy_from: UriText | None = None
    storage: StorageSpec = StorageSpec()
    resources: ResourcesSpec = ResourcesSpec()

    if TYPE_CHECKING:  # what the fields' validators take, which no type of a field can say

        def __init__(
            self,
            *,
            models: Sequence[str | PathLike[str] | Source | SourceGlob | Mapping[str, Any]],
            method: MethodSpec | Mapping[str, Any],
            output: str | PathLike[str],
            base: str | PathLike[str] | None = None,
            seed: int = 0,
            dtype: str = "auto",
            shard_size: int | str = 5 * 10**9,
            part_size: int | str | None = None,
            on_missing: Literal["error", "keep-base"] = "error",
            copy_from: str | PathLike[str] | None = None,
            storage: StorageSpec | Mapping[str, Any] = ...,
            resources: ResourcesSpec | Mapping[str, Any] = ...,
        ) -> None: ...

    @model_validator(mode="after")
    def _agree(self) -> MergeSpec:
        found = clashes(self.model_dump())
        if found:
            raise PydanticCustomError("clash", "{what}", {"what": "; ".join(map(str, found))})
        return self

    def canonical(self) -> MergeSpec:
        """The same merge with each URI in its canonical form, so that it means the same elsewhere."""
        models = tuple(
            entry.model_copy(update={"uri" if isinstance(entry, Source) else "glob": str(entry.location)})
            for entry in self.models
        )
        uris = {
            name: str(parse_uri(text))
            for name in ("base", "output", "copy_from")
            if (text := getattr(self, name)) is not None
        }
        return self.model_copy(update={"models": models, **uris})

    def to_yaml(self, *, places: bool = True) -> str:
        """The spec as YAML; :func:`plait.spec.load_spec` reads it back as an equal spec.

        Args:
            places: whether to say how stores are spoken to and where it runs (``storage`` and
                ``resources``), which is no part of what the result is.
        """
        from plait.yaml_writer import write_yaml

        data = self.model_dump(mode="json", exclude_none=True)
        data["models"] = [_short(entry) for entry in data["models"]]
        # Options are the method's: a null among them may differ from an absent key.
        data["method"] = self.method.model_dump(mode="json")
        for section, table in (("storage", "buckets"), ("resources", "labels")):
            if not data[section].get(table):
                del data[section][table]
            if not (data[section] and places):
                del data[section]
        for holder, name in (
            (data, "shard_size"),
            (data, "part_size"),
            (data.get("resources", {}), "memory"),
        ):
            if name in holder and parse_size(format_size(holder[name])) == holder[name]:
                holder[name] = format_size(holder[name])
        return write_yaml(data)


NOT_OF_THE_RESULT: Final = frozenset({"storage", "resources"})
"""Keys that say how and where a merge runs: no part of a fingerprint, nor of what a result says of itself."""


def _short(entry: dict[str, Any]) -> object:
    return entry["uri"] if "uri" in entry and entry["weight"] == 1 else entry
