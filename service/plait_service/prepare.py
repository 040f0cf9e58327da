"""From a spec to a plan: expand globs, read headers, and report everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from plait.errors import AuthExpired, PlaitError, PlanRejected, SourceMissing, SpecInvalid
from plait.spec import MergeSpec, Source
from plait.spec_clashes import clashes
from plait.uri import Uri, parse_uri
from plait_service.globs import find_folders
from plait_service.plan import Plan, make_plan
from plait_workers.checkpoint.model import Checkpoint, HeaderCache, load_checkpoint
from plait_workers.methods import METHODS
from plait_workers.storage.base import ObjectStore
from plait_workers.storage.registry import Stores

_SOURCE_THREADS = 8
_WITH_COMMITS = ("hf",)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A plan and the stores that it speaks of, in the job's order.

    ``source_uris`` open the same stores elsewhere.
    """

    plan: Plan
    stores: tuple[ObjectStore, ...]
    copies: ObjectStore
    output: ObjectStore
    source_uris: tuple[str, ...] = ()

    @property
    def is_remote(self) -> bool:
        """Whether any byte comes or goes over a network."""
        return any(store.is_remote for store in (*self.stores, self.output))


def prepare(spec: MergeSpec, *, places: Stores | None = None) -> Prepared:
    """Resolve, read headers, plan. Cost: the headers of every source, read concurrently.

    Args:
        places: what opens stores; by default what the spec's ``storage`` says.

    Raises:
        PlanRejected: with every problem of the spec's models, their files and their tensors.
    """
    places = places or Stores(spec.storage)
    try:
        resolved = expand(spec, places)
    except PlanRejected as rejected:
        raise _rejected([*rejected.problems, *_problems_beside(rejected, spec, places)]) from rejected
    sources = [source for source in resolved.models if isinstance(source, Source)]
    named = _named(resolved)
    copied = _copied(resolved, named)
    opened, problems = _open_all([*named, parse_uri(resolved.output)], places)
    if problems:
        raise _rejected(problems)
    *stores, output = opened
    checkpoints = _load_all(stores)
    plan = make_plan(
        spec=resolved,
        method=METHODS[resolved.method.name].model_validate(resolved.method.model_dump()),
        weights=[source.weight for source in sources],
        models=checkpoints[: len(sources)],
        base=checkpoints[len(sources)] if resolved.base is not None else None,
        copy_from=checkpoints[copied],
    )
    return Prepared(
        plan=plan,
        stores=tuple(stores),
        copies=stores[copied],
        output=output,
        source_uris=tuple(map(str, named)),
    )


def expand(spec: MergeSpec, places: Stores) -> MergeSpec:
    """The spec with canonical URIs and every glob replaced by what it finds, naturally sorted.

    Raises:
        PlanRejected: a glob finds nothing, or a model is named twice.
    """
    problems: list[PlaitError] = []
    models: list[Source] = []
    canonical = spec.canonical()
    for entry in canonical.models:
        if isinstance(entry, Source):
            models.append(entry)
            continue
        try:
            found = find_folders(entry.location, places)
        except PlaitError as error:
            problems.append(error)
            continue
        if not found:
            problems.append(SourceMissing("a glob finds no folder", where=entry.glob))
        models += [Source(uri=uri, weight=entry.weight) for uri in found]
    if problems:
        raise PlanRejected(problems)
    data = canonical.model_dump(exclude_none=True)
    clashing = clashes({**data, "models": [model.model_dump() for model in models]})
    if clashing:
        raise PlanRejected([SpecInvalid(str(finding)) for finding in clashing])
    # What has commits is named by its commit from here on: in the plan, the fingerprint, the manifest.
    pinned = [model.model_copy(update={"uri": _pin(model.uri, places)}) for model in models]
    others = {name: _pin(uri, places) for name in ("base", "copy_from") if (uri := getattr(canonical, name))}
    return canonical.model_copy(update={"models": tuple(pinned), **others})


def _pin(uri: str, places: Stores) -> str:
    parsed = parse_uri(uri)
    if parsed.scheme not in _WITH_COMMITS:
        return uri
    try:
        return places.open(parsed).resolved
    except PlaitError as error:
        raise PlanRejected([error]) from error


def _copied(spec: MergeSpec, named: Sequence[Uri]) -> int:
    """Which source the small files come from."""
    if spec.copy_from is None:
        return 0
    wanted = parse_uri(spec.copy_from)
    if wanted not in named:
        raise PlanRejected(
            [
                SpecInvalid(
                    "copy_from: names no model of this merge",
                    expected="a sub-model or the base",
                    found=spec.copy_from,
                )
            ]
        )
    return named.index(wanted)


def _named(spec: MergeSpec) -> list[Uri]:
    """Sub-models that are no globs, and the base."""
    named = [entry.location for entry in spec.models if isinstance(entry, Source)]
    return named if spec.base is None else [*named, parse_uri(spec.base)]


def _problems_beside(rejected: PlanRejected, spec: MergeSpec, places: Stores) -> list[PlaitError]:
    """What is wrong with the other models, unless a store did not answer: nobody waits for it twice."""
    if not all(isinstance(problem, SourceMissing | SpecInvalid) for problem in rejected.problems):
        return []
    stores, problems = _open_all(_named(spec.canonical()), places)
    return problems + _problems_of(_read_all(stores))


def _open_all(named: Sequence[Uri], places: Stores) -> tuple[list[ObjectStore], list[PlaitError]]:
    stores: list[ObjectStore] = []
    problems: list[PlaitError] = []
    for uri in named:
        try:
            stores.append(places.open(uri))
        except PlaitError as error:
            problems.append(error)
    return stores, problems


def _load_all(stores: Sequence[ObjectStore]) -> list[Checkpoint]:
    """Headers of all sources at once; all that is wrong with any of them is reported together."""
    results = _read_all(stores)
    problems = _problems_of(results)
    if problems:
        raise _rejected(problems)
    return [result for result in results if isinstance(result, Checkpoint)]


def _read_all(stores: Sequence[ObjectStore]) -> list[Checkpoint | PlaitError]:
    known = HeaderCache()

    def load(store: ObjectStore) -> Checkpoint | PlaitError:
        try:
            return load_checkpoint(store, known)
        except PlaitError as error:
            return error

    pool = ThreadPoolExecutor(_SOURCE_THREADS)
    try:
        return list(pool.map(load, stores))
    finally:  # an interrupted plan waits for no store
        pool.shutdown(wait=False, cancel_futures=True)


def _problems_of(results: Sequence[Checkpoint | PlaitError]) -> list[PlaitError]:
    return [result for result in results if isinstance(result, PlaitError)]


def _rejected(problems: Sequence[PlaitError]) -> PlanRejected:
    """With expired credentials first, as they explain the others."""
    return PlanRejected(sorted(problems, key=lambda problem: not isinstance(problem, AuthExpired)))
