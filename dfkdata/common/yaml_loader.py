"""Plain values from YAML text.

Guarantees: `2e-4` is a number (YAML 1.1 loaders read it as text), a key that is written twice is an error,
nothing is executed and no tag builds an object."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from dfkdata.common.errors import ConfigError


def parse(text: str, where: str) -> Any:
    """Return the values in `text`. Raises `ConfigError` that names `where`."""
    return _load(text, where, _Loader)


def parse_texts(text: str, where: str) -> Any:
    """Return the values in `text`, each scalar as the text that stands there: `No`, `0`, `1.0` and `null` are words.

    Raises:
        ConfigError: As `parse`.
    """
    return _load(text, where, _TextLoader)


def _load(text: str, where: str, loader: type[_Loader]) -> Any:
    try:
        return yaml.load(text, Loader=loader)  # nosec B506: a SafeLoader, builds plain values only
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: lists and mappings are nested too deep to be read") from error


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads `2e-4` as a float and raises for a key that is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, str] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the base class raises an error that names the place
            written = key_node.value if isinstance(key_node, yaml.ScalarNode) else repr(key)
            if key in seen:
                raise ConfigError(
                    f"line {key_node.start_mark.line + 1}: {_said_twice(key, written, seen[key])}"
                )
            seen[key] = written
        return super().construct_mapping(node, deep)


def _said_twice(key: Any, written: str, before: str) -> str:
    """Say that a key stands there twice, or that YAML reads another spelling of it as the same value."""
    if written == before:
        return f"the key {key!r} is written twice"
    return f"the keys {before} and {written} are one value to YAML ({key!r}); quote them if they are texts"


class _TextLoader(_Loader):
    """A loader for which plain scalars are texts."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:merge"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
