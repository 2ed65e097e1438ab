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
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain values only
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: lists and mappings are nested too deep to be read") from error


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads `2e-4` as a float and raises for a key that is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the base class raises an error that names the place
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} is written twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
