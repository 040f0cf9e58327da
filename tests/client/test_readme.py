"""What the README shows is what the code takes."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from plait import MergeSpec
from plait.schedules import ScheduleRequest
from plait_workers.methods import METHODS

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(first: str) -> str:
    """The indented lines from this one on, without their indentation."""
    lines = README[README.index(f"\n    {first}") + 1 :].splitlines()
    end = next(index for index, line in enumerate(lines) if line and not line.startswith("    "))
    return dedent("\n".join(lines[:end]))


def test_the_spec() -> None:
    from plait.spec import load_spec

    spec = load_spec(block("# merge.yaml"), methods=METHODS)
    assert spec.method.name == "select"


def test_the_schedule() -> None:
    request = ScheduleRequest.model_validate(yaml.safe_load(block("# nightly.yaml")))
    assert request.name == "nightly"
    assert request.ready is not None
    assert request.latest == "s3://models/merged/latest.json"


def test_the_client() -> None:
    """Its names are there, and the spec in it is one."""
    tree = ast.parse(block("from plait import Client"))
    imported = [
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    import plait

    assert all(hasattr(plait, name) for name in imported)
    written: list[Any] = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    assert MergeSpec.model_validate(ast.literal_eval(written[0])).base == "s3://models/llama-2-7b"
