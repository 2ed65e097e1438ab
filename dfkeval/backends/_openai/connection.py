"""Open connections to servers: their addresses, the key, and the proxies of the environment."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

from dfkdata.common import credentials
from dfkdata.common.credentials import address
from dfkdata.common.errors import ConfigError, missing_package
from dfkeval.backends._openai import deadline

PACKINGS = ("gzip", "deflate")
"""Encodings of bodies that are unpacked: a piece of them becomes at most a thousand times as large."""


def client(urls: Iterable[str], key: str | None, timeout: float, concurrency: int) -> Any:
    """Return an httpx client.

    Args:
        urls: Addresses of the servers.
        key: Name of the environment variable that holds the API key; None for no key.
        timeout: Seconds without any byte after which a request is given up; `deadline.within` bounds all of it.
        concurrency: Connections at most.

    Raises:
        ConfigError: httpx is missing, the key is not set, an address is none, or a proxy cannot be used.
    """
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise missing_package('backend "openai"', "httpx", "openai") from error
    value = credentials.from_environment(key) if key is not None else None
    if key is not None and value is None:
        raise ConfigError(f"backend.key: the environment variable {key} is not set")
    for url in urls:
        credentials.of_address(url)
        _check_address(url, httpx)
    headers = {"Authorization": f"Bearer {value}"} if value else {}
    headers["Accept-Encoding"] = ", ".join(PACKINGS)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    try:
        made = httpx.Client(timeout=timeout, limits=limits, headers=headers)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"a proxy of the environment (HTTP_PROXY, ALL_PROXY, ...) cannot be used: {error}"
        ) from error
    deadline.bound(made)
    return made


def _check_address(url: str, httpx: Any) -> None:
    """Raise `ConfigError` for a server's address that is none."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"backend.base_urls: {address(url)!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ConfigError(
            f"backend.base_urls: {address(url)!r} is no address; write it as http://host:port/v1"
        )


def through(url: str) -> str:
    """Say that a proxy of the environment stands before a server; empty if none does."""
    parts, proxies = urllib.parse.urlsplit(url), urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    behind = proxy.rpartition("@")[2]  # without its password
    return f" (through the proxy {behind} of the environment; NO_PROXY={parts.hostname} goes there directly)"


def place(url: str, path: str) -> str:
    """Return the address of one of a server's paths; a query of the server's address stays behind it."""
    start, mark, query = url.partition("?")
    return f"{start.rstrip('/')}/{path}{mark}{query}"
