"""A YAML text -> plain values. `2e-4` is a number here (YAML 1.1 loaders read it as text), a key written
twice is refused, nothing is executed and no tag builds an object."""

from __future__ import annotations

import re
from typing import Any

import yaml

from dfkdata.common.errors import ConfigError


def parse(text: str, where: str) -> Any:
    """The values in `text`. Raises `ConfigError` naming `where`."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain values only
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `2e-4` as a float and refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise ConfigError(f"line {node.start_mark.line + 1}: the key {twice[0]!r} is written twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
