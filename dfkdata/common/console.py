"""What the three commands share: what they show, exit codes, examples in help texts, what files may name, and options
of two parts.

Guarantees:
    - Everything that a command shows goes through `shown`: a name, a path or an answer cannot move the cursor, change
      colours, reverse the order of letters, or send a terminal a command. The text stays JSON where it was JSON.
    - What is shown holds no key (`credentials`)."""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, cast, get_type_hints

from dfkdata.common import credentials, limits, media_roots, plugins
from dfkdata.common.errors import ConfigError, DfkError
from dfkdata.common.faults import Stopped, is_of_the_machine, naming, stoppable, told
from dfkdata.common.status_line import STATUS
from dfkdata.common.versions import installed_version

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from typer import Typer

P = ParamSpec("P")

_TRUST = "A module outside dfk that a row, an adapter or a run may name; its code is run. May be repeated."
_MEDIA = "A folder in which rows may name pictures, besides their own. May be repeated."
_ALLOW = (
    "How large data may be: unpacked, ratio (of packed files) or line, such as line=1GB. May be repeated."
)
_PRIVATE = "Let nobody but you read what is written (folders 0700, files 0600)."
_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)", re.ASCII)
#: Control characters (C0 without tab and line break, C1), signs that reverse the order of letters or are not seen, and
#: halves of characters; joiners stay, which scripts and emoji need.
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(value: object) -> str:
    """Return a value as text for a terminal: control characters as JSON writes them (\\u001b), without keys."""
    return _UNSHOWN.sub(_escaped, credentials.hidden(str(value)))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code > 0xFFFF:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04x}"


def write(text: object) -> None:
    """Write a result to stdout, escaped (`shown`); line breaks are the caller's."""
    written = shown(text)
    if written:
        STATUS.clear(hold=not written.endswith("\n"))  # the rest of a line is still to come
    with naming("standard output"):
        sys.stdout.write(written)


def say(line: object) -> None:
    """Write one line to stderr at once, escaped (`shown`)."""
    STATUS.clear()
    sys.stderr.write(f"{shown(line)}\n")
    sys.stderr.flush()


def next_command(program: str, *words: object) -> None:
    """Write the command that comes next to stdout, such that a shell runs the line as it is printed.

    Args:
        program: Name of the command.
        *words: Its words; paths and names are quoted where a shell needs that.
    """
    write(f"next: {shlex.join([program, *map(str, words)])}\n")


def styled(value: object, style: str = "") -> Text:
    """Return a value as a text for tables, escaped (`shown`); nothing in it is read as markup."""
    from rich.text import Text

    return Text(shown(value), style=style)


def terminal(*, soft_wrap: bool = False, width: int | None = None) -> Console:
    """Return rich's console on stdout. What it prints is escaped by `styled`, or is the program's own."""
    from rich.console import Console

    STATUS.clear()
    return Console(file=sys.stdout, highlight=False, soft_wrap=soft_wrap, width=width)


def application(program: str, about: str, epilog: str | None = None) -> Typer:
    """Return the typer application of a console command, which also understands --version.

    Args:
        program: Name of the command.
        about: What it is for, for the help text.
        epilog: End of the help text.
    """
    import typer

    def show_version(wanted: bool) -> None:
        if wanted:
            write(f"{program} {installed_version('dfk') or '(not installed)'}\n")
            raise typer.Exit

    def options(version: bool = False) -> None:
        pass

    option = typer.Option(
        "--version", help="Print the version and end.", callback=show_version, is_eager=True
    )
    options.__annotations__ = {"version": Annotated[bool, option], "return": None}
    app = typer.Typer(
        name=program, help=about, epilog=epilog, no_args_is_help=True, add_completion=False,
        pretty_exceptions_enable=False, rich_markup_mode="rich",
    )  # fmt: skip
    app.callback()(options)
    return app


def run_app(app: Callable[..., object], name: str) -> None:
    """Run a console command and exit.

    A `DfkError`, a fault of the machine and a signal become one message with its notes on stderr; the exit status is
    2, or 128 + signal.

    Args:
        app: The typer application.
        name: Name of the command, which begins the message.
    """
    mask = os.umask(0o077)
    os.umask(mask)
    try:
        with stoppable(), STATUS.running("starts"):
            code = app(standalone_mode=False)
            with naming("standard output"):
                sys.stdout.flush()
    except DfkError as error:
        _end(name, str(error), error, 2)
    except Stopped as error:
        _end(name, str(error), error, error.status)
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it any more, and Python would flush it
        raise SystemExit(1) from None
    except OSError as error:
        if not is_of_the_machine(error):
            raise
        _end(name, told(error), error, 2)
    except _usage_error() as error:
        _show_usage(error)
        raise SystemExit(getattr(error, "exit_code", 2)) from error
    finally:
        os.umask(mask)  # of --private
    raise SystemExit(code if isinstance(code, int) else 0)


def _end(name: str, message: str, error: BaseException, status: int) -> NoReturn:
    try:
        for line in (f"{name}: {message}", *getattr(error, "__notes__", ())):
            say(line)
    finally:
        raise SystemExit(status) from error


def _usage_error() -> type[Exception]:
    """Return the base of typer's errors about usage, whose module differs between its releases."""
    import typer

    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _show_usage(error: Any) -> None:
    """Show typer's message about usage; names of files in it are escaped."""
    from typer import rich_utils

    said = shown(error.format_message())
    error.format_message = lambda: said
    rich_utils.rich_format_error(error)


def trusting(command: Callable[P, None]) -> Callable[P, None]:
    """Return the command with --trust-plugins and --media-root, for commands that read files which name members."""
    return _with_list(with_media_roots(command), "trust_plugins", "MODULE", _TRUST, plugins.trust)


def with_media_roots(command: Callable[P, None]) -> Callable[P, None]:
    """Return the command with the option --media-root, for commands that read files which name media."""
    return _with_list(command, "media_root", "FOLDER", _MEDIA, media_roots.allow)


def with_limits(command: Callable[P, None]) -> Callable[P, None]:
    """Return the command with the option --allow, for commands that read raw data."""
    return _with_list(command, "allow", "NAME=VALUE", _ALLOW, limits.change)


def _with_list(
    command: Callable[P, None], name: str, metavar: str, text: str, use: Callable[[list[str]], object]
) -> Callable[P, None]:
    """Return a command with one more option that may be repeated."""
    import typer  # importing the packages does not need it

    option = Annotated[list[str] | None, typer.Option(metavar=metavar, help=text)]
    return _with_option(command, name, option, None, use)


def keeping_private(command: Callable[P, None]) -> Callable[P, None]:
    """Return the command with the option --private, for commands that write rows or answers into a folder."""
    import typer

    option = Annotated[bool, typer.Option("--private", help=_PRIVATE)]
    return _with_option(command, "private", option, False, lambda on: os.umask(0o077) if on else None)


def _with_option(
    command: Callable[P, None], name: str, kind: Any, default: Any, use: Callable[[Any], object]
) -> Callable[P, None]:
    """Return a command with one more option; `use` gets its value, if there is one, before the command runs."""

    @functools.wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        value = cast("dict[str, Any]", options).pop(name, None)
        if value is not None:
            use(value)
        command(*args, **options)

    kinds = get_type_hints(command, include_extras=True) | {name: kind}
    own = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    parameters = [*inspect.signature(command).parameters.values(), own]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(annotation=kinds[each.name]) for each in parameters]
    )
    run.__annotations__ = kinds
    return run


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
