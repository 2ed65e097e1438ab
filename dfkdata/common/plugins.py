"""Load members of families by name; the only dynamic import of the product.

A family is a package whose docstring states a contract, and a member is a file in it:
`dfkdata.formats.dfk_csv` is the member `dfk_csv` of the family `dfkdata.formats`. Nothing registers itself. A
dotted name (`my_company.posts`) is a module outside this repository that keeps the same contract.

Importing a module runs its code, so a dotted name counts only if the user gave it: in an option, a configuration or
a call. A name that stands in a file which somebody else may have written (`dfk.json`, a row's `meta`, a run's
`config.json`) is loaded with its `source`, and is then a shipped member or one that the user trusts (`trust`)."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Sequence
from types import ModuleType

from dfkdata.common.errors import ConfigError

_trusted: set[str] = set()


def trust(modules: Iterable[str]) -> None:
    """Let files name these modules, and those inside them, for the rest of the process.

    Args:
        modules: Dotted names such as "my_company" or "my_company.posts".
    """
    _trusted.update(modules)


def check_source(name: str, source: str) -> None:
    """Check a name that stands in a file: a shipped member, or a module that the user trusts. Nothing is imported.

    Args:
        name: The name that the file gives.
        source: The file, and the place in it.

    Raises:
        ConfigError: The name is a module outside this repository that the user has not named.
    """
    parts = name.split(".")
    if len(parts) == 1 or any(".".join(parts[:length]) in _trusted for length in range(1, len(parts) + 1)):
        return
    raise ConfigError(
        f"{source} names {name!r}, and importing it would run its code; a file may name only what ships with dfk. "
        f"If you trust that module: --trust-plugins {name}, `plugins: [{name}]` in your configuration, or "
        f"dfkdata.common.plugins.trust([{name!r}])"
    )


def names(family: str) -> list[str]:
    """Return the sorted members of `family` (a package such as "dfkdata.formats") without importing them."""
    package = importlib.import_module(family)
    return sorted(
        info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")
    )


def load(family: str, name: str, *, source: str | None = None) -> ModuleType:
    """Return the module of a member.

    Args:
        family: Name of the package.
        name: Name of the member, or a dotted name of a module elsewhere.
        source: The file that names it; None for a name that the user gave.

    Raises:
        ConfigError: There is no such member (the message lists the choices), or a file names a module outside this
            repository that the user does not trust.
    """
    known = names(family)
    if name in known:
        return importlib.import_module(f"{family}.{name}")
    if source is not None:
        check_source(name, source)
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
    if "." not in name or importlib.util.find_spec(name.split(".", maxsplit=1)[0]) is None:
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what} {name!r}: {error}; give an importable dotted path") from error


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return `"; did you mean X?"`, or an empty string if no known word is similar."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
