"""The exceptions of all three packages.

    DfkError                 everything meant for the user; the command line makes it one message and exit 2
    ├── ConfigError          the caller asked for something impossible; raised before any slow step
    ├── DataError            a file is not what it claims to be; carries file and line
    └── BackendError         an engine or a server failed after its retries

A bad row or a bad answer is never an exception: it is a `Reject` or a `Failure`, counted and reported.
Every message says what is wrong, where, and what would work."""

from __future__ import annotations


class DfkError(Exception):
    """Report something to the user; the base of all errors of the product."""


class ConfigError(DfkError):
    """Report a request that cannot work as written: an unknown name, a missing package, a contradiction."""


class DataError(DfkError):
    """Report a file that does not hold what it claims to hold."""


class BackendError(DfkError):
    """Report a model engine or a server that failed after its retries."""


def missing_package(what: str, package: str, extra: str) -> ConfigError:
    """Return the error for an optional package that is not installed.

    Args:
        what: What needs it.
        package: The package.
        extra: The extra of `dfk` that brings it.
    """
    return ConfigError(f'{what} needs {package}: pip install "dfk[{extra}]"')
