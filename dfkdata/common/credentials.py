"""Keep keys away from disk and screen.

How it works: whoever reads a key says so (`know`, `from_environment`, `of_address`). `without_keys` takes known keys
out of a text and changes nothing else; `hidden`, for the screen, takes users and passwords out of addresses and texts
that look like a key as well; `public`, for records of a run, takes queries out of addresses and the values from under
names such as api_key, too."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

#: Variables that libraries below read by themselves.
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
#: Shorter values would take harmless words out of texts.
_SHORTEST = 6
_ADDRESS = re.compile(
    r"\b([a-zA-Z][a-zA-Z0-9+.-]{0,30}://)([^\s/?#'\"<>]*@)?([^\s?#'\"<>]*)(\?[^\s#'\"<>)]*)?", re.ASCII
)
_NAMES = re.compile(
    r"(^|[_.-])(api_?key|secret|password|passwd|authorization|credentials?"
    r"|(hf|auth|access|api|bearer|refresh)_?token)$",
    re.IGNORECASE,
)
_LIKE_A_KEY = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|AIza[A-Za-z0-9_-]{30,}"
    r"|gh[opsu]_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,})",
    re.ASCII,
)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
HIDDEN = "[hidden]"

_known: dict[str, str] = {}


def know(value: str, name: str) -> None:
    """Take a key out of everything that is shown or recorded from now on.

    Args:
        value: The key.
        name: What stands in its place, in brackets: the variable that it comes from.
    """
    if len(value) >= _SHORTEST:
        _known[value] = _known[quote(value, safe="")] = name


def from_environment(variable: str) -> str | None:
    """Return the key in a variable of the environment, which is known from now on; None if it is not set."""
    value = os.environ.get(variable)
    if value:
        know(value, variable)
    return value or None


def is_variable(name: str) -> bool:
    """Return whether a text names a variable of the environment, and is not the key itself."""
    return name in os.environ or (_VARIABLE.fullmatch(name) is not None)


def of_address(url: str) -> None:
    """Know the password and the values of the query of an address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    user, _, host = parts.netloc.rpartition("@")
    secret = user.partition(":")[2] or user
    values = [value for _, value in parse_qsl(parts.query)]
    sent = b64encode(unquote(user).encode()).decode()  # how it stands in a request's head
    for value in ([unquote(secret), sent] if host else []) + values:
        know(value, "hidden")


def without_keys(text: str) -> str:
    """Return a text without the keys that are known; nothing else in it changes."""
    for variable in _VARIABLES:
        from_environment(variable)
    for value, name in _known.items():
        if value in text:
            text = text.replace(value, f"[{name}]")
    return text


def hidden(text: str) -> str:
    """Return a text for the screen: without keys, without users and passwords in addresses."""
    text = _LIKE_A_KEY.sub(HIDDEN, without_keys(text))
    return _ADDRESS.sub(_without_user, text) if "@" in text and "://" in text else text


def address(url: str) -> str:
    """Return an address without its user, its password and its query, which may hold a key."""
    return _ADDRESS.sub(_without_query, hidden(url))


def public(value: Any) -> Any:
    """Return plain data as a record may hold it: without keys, with addresses as `address` writes them."""
    match value:
        case str():
            return address(value) if "://" in value else hidden(value)
        case dict():
            return {key: _entry(str(key), entry) for key, entry in value.items()}
        case list() | tuple():
            return [public(entry) for entry in value]
        case _:
            return value


def keyless(value: Any) -> Any:
    """Return plain data without the keys that are known; nothing else in it changes."""
    match value:
        case str():
            return without_keys(value)
        case dict():
            return {without_keys(str(key)): keyless(entry) for key, entry in value.items()}
        case list() | tuple():
            return [keyless(entry) for entry in value]
        case _:
            return value


def _entry(name: str, value: Any) -> Any:
    if _NAMES.search(name) and isinstance(value, str) and not _VARIABLE.fullmatch(value):
        return HIDDEN
    return public(value)


def _without_user(match: re.Match[str]) -> str:
    scheme, user, rest, query = match.groups(default="")
    return f"{scheme}{f'{HIDDEN}@' if user else ''}{rest}{query}"


def _without_query(match: re.Match[str]) -> str:
    scheme, _, rest, query = match.groups(default="")
    return f"{scheme}{rest}{f'?{HIDDEN}' if query else ''}"
