"""Load members of families by name; the only dynamic import of the product.

A family is a package whose docstring states a contract, and a member is a file in it:
`dfkdata.formats.dfk_csv` is the member `dfk_csv` of the family `dfkdata.formats`. Nothing registers itself. A
dotted name (`my_company.posts`) is a module outside this repository that keeps the same contract."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from types import ModuleType

from dfkdata.common.errors import ConfigError


def names(family: str) -> list[str]:
    """Return the sorted members of `family` (a package such as "dfkdata.formats") without importing them."""
    package = importlib.import_module(family)
    return sorted(
        info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")
    )


def load(family: str, name: str) -> ModuleType:
    """Return the module of a member.

    Args:
        family: Name of the package.
        name: Name of the member, or a dotted name of a module elsewhere.

    Raises:
        ConfigError: There is no such member; the message lists the choices.
    """
    known = names(family)
    if name in known:
        return importlib.import_module(f"{family}.{name}")
    module = load_outside(family, name)
    if module is None:
        raise ConfigError(f"{name!r} is not one of {family}: {', '.join(known)}{suggestion(name, known)}")
    return module


def load_outside(what: str, name: str) -> ModuleType | None:
    """Return the module of a dotted name outside this repository; None if the name cannot be one.

    Args:
        what: What is looked for, for the message.
        name: Dotted path such as "my_company.posts".

    Raises:
        ConfigError: The package is there, and the module is not or imports something that is not.
    """
    if "." not in name or importlib.util.find_spec(name.split(".")[0]) is None:
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what} {name!r}: {error}; give an importable dotted path") from error


def suggestion(word: str, known: list[str]) -> str:
    """Return `"; did you mean X?"`, or an empty string if no known word is similar."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
