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
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from dfkdata.common.errors import ConfigError, DfkError

_trusted: set[str] = set()


def trust(modules: Iterable[str]) -> None:
    """Let files name these modules, and those inside them, for the rest of the process.

    Args:
        modules: Dotted names such as "my_company" or "my_company.posts".
    """
    _trusted.update(modules)


def trusted() -> tuple[str, ...]:
    """Return the modules that files may name."""
    return tuple(sorted(_trusted))


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
    required = getattr(importlib.import_module(family), "REQUIRED", ())
    if missing := [each for each in required if not hasattr(module, each)]:
        raise ConfigError(
            f"{name!r} defines no {' and no '.join(missing)}; a member of {family} needs {', '.join(required)} "
            "(docs/extending.md)"
        )
    return module


def load_outside(what: str, name: str) -> ModuleType | None:
    """Return the module of a dotted name outside this repository; None if the name cannot be one.

    Args:
        what: What is looked for, for the message.
        name: Dotted path such as "my_company.posts".

    Raises:
        ConfigError: The name is a path, its package is not on Python's path, or the module is not there or raises.
    """
    if "/" in name or name.endswith(".py"):
        raise ConfigError(_is_path(what, name))
    package = name.split(".", maxsplit=1)[0]
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        return None
    if importlib.util.find_spec(package) is None:
        here = (Path.cwd() / package).is_dir() or (Path.cwd() / f"{package}.py").is_file()
        way_out = (
            f"it lies in the current folder; {_on_path()}"
            if here
            else _on_path("FOLDER, the one that holds it")
        )
        raise ConfigError(f"{what} {name!r}: there is no package {package!r} on Python's path; {way_out}")
    try:
        return importlib.import_module(name)
    except DfkError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what} {name!r}: {error}; give an importable dotted path") from error
    except (Exception, SystemExit) as error:  # its code is not ours, and may raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        says = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ConfigError(
            f"{what} {name!r}: importing it raises {says} ({place.filename}:{place.lineno}); mend that module, or "
            "leave it out"
        ) from error


def _is_path(what: str, name: str) -> str:
    dotted = ".".join(part for part in Path(name).with_suffix("").parts if part.isidentifier())
    return f"{what} {name!r} is a path; write the module's dotted name, such as {dotted}, and {_on_path()}"


def _on_path(folder: str = "") -> str:
    """Return how a folder comes onto Python's path; the current one if none is named."""
    return f"start the command with PYTHONPATH={folder or Path.cwd()}"


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return `"; did you mean X?"`, or an empty string if no known word is similar."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
