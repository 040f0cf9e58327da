"""``import plait`` is light, and the README says what the command can do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from plait.cli import cli

README = (Path(__file__).parents[2] / "README.md").read_text()
PLAIT = Path(sys.executable).parent / "plait"
HEAVY = {"numpy", "torch", "ray", "transformers", "pydantic", "yaml", "rich", "awscrt", "psutil"}


def _imported(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_plait_loads_nothing_heavy() -> None:
    assert not _imported("import plait") & HEAVY


def test_the_command_loads_nothing_heavy_before_it_knows_what_to_do() -> None:
    assert not _imported("import plait.cli") & HEAVY


def test_a_spec_needs_neither_numpy_nor_torch() -> None:
    loaded = _imported(
        "from plait import MergeSpec\nMergeSpec(models=['a'], output='o', method={'name': 'x'})"
    )
    assert not loaded & {"numpy", "torch", "plait_workers", "plait_service"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    import plait

    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        plait.nothing_of_this_name  # noqa: B018


def test_help_lists_every_command() -> None:
    done = subprocess.run([PLAIT, "--help"], capture_output=True, text=True, check=True)
    for name in cli.commands:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_readme_has_every_command_and_option(name: str) -> None:
    assert f"`plait {name} " in README
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert f"`{option}" in README, option
