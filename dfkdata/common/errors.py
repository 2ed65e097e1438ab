"""What the three packages raise.

    DfkError                 everything meant for the user; the command line makes it one message and exit 2
    ├── ConfigError          the caller asked for something impossible; raised before any slow step
    ├── DataError            a file is not what it claims to be; carries file and line
    └── BackendError         an engine or a server failed after its retries

A bad row or a bad answer is never an exception: it is a `Reject` or a `Failure`, counted and reported.
Every message says what is wrong, where, and what would work."""

from __future__ import annotations


class DfkError(Exception):
    """Base of all errors that are meant for the user."""


class ConfigError(DfkError):
    """The request cannot work as written: an unknown name, a missing package, a contradiction."""


class DataError(DfkError):
    """A file does not hold what it claims to hold."""


class BackendError(DfkError):
    """A model engine or a server failed and its retries are spent."""


def missing_package(what: str, package: str, extra: str) -> ConfigError:
    """The one-line error for an optional dependency that is not installed: what needs it and which extra
    brings it."""
    return ConfigError(f'{what} needs {package}: pip install "dfk[{extra}]"')
