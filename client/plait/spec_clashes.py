"""What keys of a spec have to do with each other, checked on whatever of the data can be read.

Works on plain data, not on a valid spec, so that a wrong ``dtype`` does not hide a doubled model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from plait.spec_fields import MAX_MODELS
from plait.spec_problems import Finding, dotted, shown
from plait.uri import Uri, UriError, parse_glob, parse_uri
from plait.yaml_source import Path


def clashes(data: Mapping[str, Any]) -> list[Finding]:
    """Each pair of keys that contradict one another. Linear in the number of models.

    Args:
        data: a spec's data, valid or not; what cannot be read is passed over.
    """
    entries = data.get("models")
    entries = entries[:MAX_MODELS] if isinstance(entries, list | tuple) else ()
    models = _places(entries, "uri", parse_uri)
    globs = _places(entries, "glob", parse_glob)
    base = _read(data.get("base"), parse_uri)
    inputs = models if base is None else {**models, ("base",): base}
    return [
        *_repeated({**models, **globs, **inputs}),
        *_output_apart(_read(data.get("output"), parse_uri), inputs, globs),
        *_copy_from(data.get("copy_from"), inputs, globs),
        *_no_weight(entries),
    ]


def _places(entries: Any, key: str, parse: Callable[[str], Uri]) -> dict[Path, Uri]:
    places: dict[Path, Uri] = {}
    for index, entry in enumerate(entries):
        path: Path = ("models", index)
        text = entry if key == "uri" else None
        if isinstance(entry, Mapping):
            path, text = (*path, key), entry.get(key)
        uri = _read(text, parse)
        if uri is not None:
            places[path] = uri
    return places


def _read(text: object, parse: Callable[[str], Uri]) -> Uri | None:
    try:
        return parse(text) if isinstance(text, str) else None
    except UriError:
        return None  # the field's own check reports it


def _repeated(inputs: Mapping[Path, Uri]) -> Iterator[Finding]:
    first: dict[Uri, Path] = {}
    for path, uri in inputs.items():
        earlier = first.setdefault(uri, path)
        if earlier != path:
            other = "that is not among the sub-models" if path == ("base",) else "that is not in the list yet"
            yield Finding(
                path=path,
                expected=f"a model {other}",
                found=f"{shown(str(uri))}, which is {dotted(earlier)} too",
            )


def _output_apart(
    output: Uri | None, inputs: Mapping[Path, Uri], globs: Mapping[Path, Uri]
) -> Iterator[Finding]:
    """A result among the sources would be taken for one of them, or overwrite one, the next time."""
    if output is None:
        return
    relations = [
        f"{'is' if uri == output else 'lies in' if uri.contains(output) else 'holds'} {dotted(path)}, {uri}"
        for path, uri in inputs.items()
        if output.contains(uri) or uri.contains(output)
    ]
    relations += [
        f"is matched by {dotted(path)}, {pattern}"
        for path, pattern in globs.items()
        if pattern.pattern_contains(output)
    ]
    if relations:
        more = f" (and {len(relations) - 1} more)" if len(relations) > 1 else ""
        yield Finding(
            path=("output",),
            expected="a place apart from all models and the base",
            found=f"{shown(str(output))}, which {relations[0]}{more}",
        )


def _copy_from(text: object, inputs: Mapping[Path, Uri], globs: Mapping[Path, Uri]) -> Iterator[Finding]:
    uri = _read(text, parse_uri)
    if uri is None or uri in inputs.values() or any(glob.pattern_contains(uri) for glob in globs.values()):
        return
    yield Finding(
        path=("copy_from",), expected="the URI of one of the models or of the base", found=shown(text)
    )


def _no_weight(entries: Any) -> Iterator[Finding]:
    weights = [entry.get("weight", 1) if isinstance(entry, Mapping) else 1 for entry in entries]
    if weights and all(not isinstance(weight, bool) and weight == 0 for weight in weights):
        yield Finding(
            path=("models",), expected="a weight above 0 in one entry at least", found="0 in all of them"
        )
