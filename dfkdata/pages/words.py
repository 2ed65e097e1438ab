"""The words on pages, in each language."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final, Literal, get_args

import yaml

from dfkdata.common.errors import ConfigError

Language = Literal["en", "id"]
LANGUAGES: Final[tuple[str, ...]] = get_args(Language)


@cache
def table() -> dict[str, dict[str, str]]:
    """Return key -> language -> text, as written in `words.yaml`."""
    text = resources.files("dfkdata.pages").joinpath("words.yaml").read_text(encoding="utf-8")
    words: dict[str, dict[str, str]] = yaml.safe_load(text)
    return words


class Words:
    """The words of one language.

    Args:
        lang: "en" or "id".

    Raises:
        ConfigError: There are no words of this language.

    Example:
        >>> from dfkdata.pages import Words
        >>> Words("id")("n_samples", n=3)
        '3 sampel'
    """

    def __init__(self, lang: str = "en") -> None:
        if lang not in LANGUAGES:
            raise ConfigError(f"lang {lang!r}: pages are written in {' or '.join(LANGUAGES)}")
        self.lang = lang

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with `values` in its places. Raises `KeyError` for a key that no language has."""
        text = table()[key][self.lang]
        return text.format_map(values) if values else text

    def keys_of(self, start: str) -> list[str]:
        """Return the keys that begin with `start`, such as "browser."."""
        return [key for key in table() if key.startswith(start)]

    def known(self, key: str, otherwise: str | None = None) -> str:
        """Return the word of a key, for names that users choose; `otherwise` or else the key if there is none."""
        return table().get(key, {}).get(self.lang, key if otherwise is None else otherwise)
