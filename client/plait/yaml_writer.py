"""YAML that ``yaml_source`` reads back as the same data."""

from __future__ import annotations

import yaml

from plait.yaml_source import Plain, resolve_plain

# Read as line ends unless they are escaped, which PyYAML does in this style alone.
_BREAKS = "\x85\u2028\u2029\ufeff"


class _Dumper(yaml.SafeDumper):
    """Writes for the YAML 1.2 core schema, which PyYAML's own quoting does not know."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    if any(character in text for character in _BREAKS):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    # PyYAML takes 1e5 for text and would leave it bare; its own rules quote what YAML 1.1 misreads.
    try:
        bare = isinstance(resolve_plain(text), str)
    except ValueError:
        bare = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else "'")


_Dumper.add_representer(str, _write_text)


def write_yaml(data: Plain) -> str:
    """``data`` as one YAML document in the order of its keys, without anchors or tags."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20)
    return text
