"""Control tokens in the texts of rows: found, and broken up so that no tokenizer obeys them.

Tokenizers obey such tokens wherever they stand: <|image_pad|> in a text is one more picture, <|im_end|> ends the turn,
and what follows speaks as the system. A text that a row or a caller brings is data and no control: the chat template
writes its own.

How it works: a blank behind the first sign makes a token plain text (`< |im_end|>`), in questions, answers, tools and
options alike, for training, evaluation and servers. Tokens that only mark words in a text (`WORDS`) stay."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

#: Tokens of Qwen that mark words and places of a picture in a text; they open and end nothing.
WORDS = frozenset(f"<|{name}_{end}|>" for name in ("box", "object_ref", "quad") for end in ("start", "end"))
_BYTES = re.compile(rb"<\|[A-Za-z0-9_]+\|>")
_TEXT = r"<[|\uff5c][A-Za-z0-9_\u2581]{1,64}[|\uff5c]>"
_LESS = ord("<")
#: Characters of the longest token that is looked for across two parts of a turn.
_LONGEST = 72


def may_hold_control_token(turns: bytes) -> bool:
    """Return whether encoded turns hold the beginning of a control token."""
    return _LESS in turns and b"<|" in turns  # searching for one byte is five times as fast as for two


def control_token(turns: bytes) -> str | None:
    """Return the first control token in encoded turns, or None."""
    match = _BYTES.search(turns) if may_hold_control_token(turns) else None
    return match.group().decode() if match is not None else None


def found(text: str, tokens: Collection[str] = ()) -> str | None:
    """Return the first token in a text that a tokenizer would obey, None if there is none.

    Args:
        text: The text.
        tokens: Special tokens of a tokenizer; those of the form <|name|> are always looked for.
    """
    pattern, first_signs = _searched(frozenset(tokens))
    if not any(sign in text for sign in first_signs):
        return None
    return next((match[0] for match in pattern.finditer(text) if match[0] not in WORDS), None)


def plain(value: Any, tokens: Collection[str] = ()) -> Any:
    """Return turns, tools or options with the control tokens in their texts broken up.

    What holds none is returned as it is; parts that name a file stay as they are.

    Args:
        value: Plain data.
        tokens: Special tokens of a tokenizer.
    """
    return _plain(value, frozenset(tokens))


def _plain(value: Any, tokens: frozenset[str]) -> Any:
    match value:
        case str():
            return _broken(value, tokens)
        case {"type": str(kind)} if kind in ("image", "video", "audio", "image_url"):
            return value
        case dict():
            return {_plain(key, tokens): _plain(entry, tokens) for key, entry in value.items()}
        case list() | tuple():
            return _across([_plain(entry, tokens) for entry in value], tokens)
        case _:
            return value


def _broken(text: str, tokens: frozenset[str]) -> str:
    pattern, _ = _searched(tokens)
    while found(text, tokens) is not None:  # breaking one up may leave another that overlapped it
        text = pattern.sub(
            lambda match: match[0] if match[0] in WORDS else f"{match[0][0]} {match[0][1:]}", text
        )
    return text


def _across(parts: list[Any], tokens: frozenset[str]) -> list[Any]:
    """Return the parts of a turn, texts parted by a blank where two or more would make a token together."""
    tail, made = "", []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            tail = ""
        elif found(tail + text[:_LONGEST], tokens) is not None:
            text = f" {text}"
            part = part | {"text": text} if isinstance(part, dict) else text
        tail = (tail + text)[-_LONGEST:] if isinstance(text, str) else ""
        made.append(part)
    return made


@lru_cache(maxsize=64)
def _searched(tokens: frozenset[str]) -> tuple[re.Pattern[str], frozenset[str]]:
    """Return the pattern of all tokens, and the signs that they begin with."""
    own = [token for token in tokens if len(token) > 1 and not re.fullmatch(_TEXT, token)]
    own.sort(key=len, reverse=True)
    return re.compile("|".join([_TEXT, *map(re.escape, own)])), frozenset("<").union(
        token[0] for token in own
    )
