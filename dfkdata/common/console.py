"""What the three commands share: exit codes, examples in help texts, trusted plug-ins, and options of two parts."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from typing import Annotated, ParamSpec, cast, get_type_hints

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError, DfkError

P = ParamSpec("P")

_TRUST = "A module outside dfk that a row, an adapter or a run may name; its code is run. May be repeated."
_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)", re.ASCII)


def run_app(app: Callable[[], object], name: str) -> None:
    """Run a console command; a `DfkError` becomes one message with its notes on stderr, and exit code 2.

    Args:
        app: The typer application.
        name: Name of the command, which begins the message.
    """
    try:
        app()
    except DfkError as error:
        lines = [f"{name}: {error}", *getattr(error, "__notes__", ())]
        sys.stderr.write("\n".join(lines) + "\n")
        raise SystemExit(2) from error


def trusting(command: Callable[P, None]) -> Callable[P, None]:
    """Return the command with the option --trust-plugins, for commands that read files which name members."""
    import typer  # importing the packages does not need it

    @functools.wraps(command)
    def trusted(*args: P.args, **options: P.kwargs) -> None:
        plugins.trust(cast("list[str]", options.pop("trust_plugins", None) or []))
        command(*args, **options)

    kinds = get_type_hints(command, include_extras=True)
    kinds["trust_plugins"] = Annotated[list[str] | None, typer.Option(metavar="MODULE", help=_TRUST)]
    own = inspect.Parameter("trust_plugins", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [*inspect.signature(command).parameters.values(), own]
    trusted.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(annotation=kinds[each.name]) for each in parameters]
    )
    trusted.__annotations__ = kinds
    return trusted


def examples(*lines: str) -> str:
    """Return the end of a help text: one example a line."""
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


def key_value(text: str, option: str, form: str = "KEY=VALUE") -> tuple[str, str]:
    """Split "key=value" at the first "=".

    Args:
        text: What the user wrote.
        option: Name of the option, for the message.
        form: How the option is written, for the message.

    Raises:
        ConfigError: `text` has no "=", or nothing before it.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"{option} {text!r}: write it as {form}")
    return key, value


def part_of(text: str | None, option: str = "--shard") -> tuple[int, int]:
    """Return (place, count) of a shard: "3/16" gives (3, 16), None gives (1, 1).

    Raises:
        ConfigError: `text` is not written like that, or its place is beyond its count.
    """
    if text is None:
        return 1, 1
    match = _PART.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise ConfigError(f"{option} {text!r}: write 3/16 for the third of sixteen parts")
    return int(match[1]), int(match[2])
