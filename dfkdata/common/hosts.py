"""Read the Host header of a request, which tells by what name a local server was asked."""

from __future__ import annotations

import re

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d+)?", re.ASCII)


def host_of(header: str) -> str | None:
    """Return the name in a Host header without its port, in lower case; None if the header is something else.

    Example:
        >>> from dfkdata.common.hosts import host_of
        >>> host_of("LocalHost:8080"), host_of("[::1]:80"), host_of("a b")
        ('localhost', '[::1]', None)
    """
    match = _HOST.fullmatch(header.lower())
    return match[1] if match else None
