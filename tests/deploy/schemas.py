"""What Kubernetes and KubeRay accept, as strict JSON schemas.

KubeRay's schemas are its CRDs, from the folder that ``PLAIT_KUBERAY_CRDS`` names; Kubernetes' own are
those that kubernetes-validate brings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cel
import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

FOLDER = "PLAIT_KUBERAY_CRDS"
GROUP = "ray.io/"
OLDEST, NEWEST = "1.31", "1.37"
"""Versions of Kubernetes that plain manifests must be valid in."""
_RANGES = {"int32": 2**31, "int64": 2**63}


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an openAPIV3Schema; nothing passes that Kubernetes would drop or refuse."""
    made: dict[str, Any] = {
        key: value
        for key, value in schema.items()
        if key in _KEPT or (key.startswith("x-kubernetes-") and key not in _READ_HERE)
    }
    if "properties" in schema:
        made["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        made["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _strict(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
        made.pop("anyOf", None)
    if schema.get("x-kubernetes-list-type") == "set":
        made["uniqueItems"] = True
    if schema.get("format") in _RANGES:
        made.setdefault("minimum", -_RANGES[schema["format"]])
        made.setdefault("maximum", _RANGES[schema["format"]] - 1)
    if schema.get("nullable"):
        made = {"anyOf": [{"type": "null"}, made]}
    return made


_KEPT = {
    *("type", "required", "enum", "pattern", "format", "anyOf", "oneOf", "allOf", "not", "uniqueItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "default"),
}
_READ_HERE = {
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"),
    *("x-kubernetes-list-type", "x-kubernetes-map-type"),
}


def _unique_keys(_validator: Any, keys: list[str], value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """A list that is a map: no two items with the same keys, where a key's default counts."""
    known = schema.get("items", {}).get("properties", {})
    seen = set()
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            key = tuple(str(item.get(name, known.get(name, {}).get("default"))) for name in keys)
            if key in seen:
                yield jsonschema.ValidationError(f"two items with {dict(zip(keys, key, strict=True))}")
            seen.add(key)


def _rules(_validator: Any, rules: list[dict[str, str]], value: Any, _schema: Any) -> Iterator[Any]:
    """Rules in CEL; those that compare with an older object say nothing of a new one."""
    for rule in rules:
        if "oldSelf" not in rule["rule"] and not cel.evaluate(rule["rule"], {"self": value}):
            yield jsonschema.ValidationError(rule["message"])


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"x-kubernetes-list-map-keys": _unique_keys, "x-kubernetes-validations": _rules},
)


@cache
def _crd(kind: str) -> Any:
    """A validator of a kind of KubeRay's."""
    path = Path(os.environ[FOLDER]) / f"ray.io_{kind.lower()}s.yaml"
    crd = yaml.load(path.read_text(), yaml.CSafeLoader)
    [version] = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {
        "apiVersion": {"const": f"{crd['spec']['group']}/v1"},
        "kind": {"const": crd["spec"]["names"]["kind"]},
        # A CRD says nothing of metadata; Kubernetes itself checks it, here by another kind's schema.
        "metadata": {"type": "object"},
    }
    schema["required"] = [*schema.get("required", []), "apiVersion", "kind", "metadata", "spec"]
    return _Validator(schema, format_checker=jsonschema.FormatChecker())


@cache
def _plain(kind: str, api_version: str, version: str) -> Any:
    """A validator of a kind of Kubernetes' own; kubernetes-validate's, but read once."""
    group, _, name = api_version.rpartition("/")
    short = f"{group.split('.')[0]}-{name}" if group else name
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    parts = [
        Resource.from_contents(schema_contents(f"{folder}/{file}.json", version))
        for file in (f"{kind.lower()}-{short}", "_definitions")
    ]
    return jsonschema.Draft202012Validator(parts[0].contents, registry=parts @ Registry())


def _errors(data: dict[str, Any]) -> Iterator[jsonschema.ValidationError]:
    kind, api_version = data.get("kind"), data.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(api_version, str):
        yield jsonschema.ValidationError("kind and apiVersion must be words")
    elif not api_version.startswith(GROUP):
        for version in (OLDEST, NEWEST):
            yield from _plain(kind, api_version, version).iter_errors(data)
    elif FOLDER in os.environ:
        yield from _crd(kind).iter_errors(data)
        yield from _plain("ObjectMeta", "meta/v1", NEWEST).iter_errors(data.get("metadata"))
    else:
        pytest.skip(f"{FOLDER} does not name a folder with KubeRay's CRDs")


def problems(data: dict[str, Any]) -> list[str]:
    """All that is wrong with an object; skips the test where KubeRay's schemas are not at hand."""
    return [f"{error.json_path}: {error.message[:300]}" for error in _errors(data)]


def is_valid(data: dict[str, Any]) -> bool:
    """Whether nothing is wrong with an object; stops at the first problem."""
    return next(_errors(data), None) is None
