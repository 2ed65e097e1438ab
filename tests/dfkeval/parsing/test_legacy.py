"""The decoders of earlier evaluators: equal to their patterns on random texts, and linear where these are not."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from dfkeval.parsing import legacy

PARTS = (
    "<think>", "</think>", "Label:", "label :", "LABEL:", "Sub-label: a", "Analisis:", "penjelasan:",
    "Penjelasan: ", "Kesimpulan:", "fakta",
    "Non-DFK", "bukan dfk.", "**", "***", "**Hoaks.**", "*", ".", "\n", "\n\n", " ", "\t", "   ", "\u00a0", "x",
    "teks biasa", "[", "]", '"a"',
    '"satu dua"', ",", "[/INST]", "null", '\\"', "```", "```json", "```json\n", "{", "}", '{"a": 1}', '"', "\\",
    "{]", "é", "",
)  # fmt: skip
READERS: dict[str, Callable[[str], Any]] = {
    "vlm_gen": legacy.sita_vlm_gen, "caption": legacy.sita_caption, "text_gen": legacy.sita_text_gen,
    "text_gen_v3": legacy.sita_text_gen_v3, "keywords": legacy.sita_keywords, "qwen": legacy.qwen_test_runner,
}  # fmt: skip


def texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(PARTS, k=rng.randint(0, 14))) for _ in range(count)]


def braced(text: str) -> str | None:
    """The first `{…}` that balances, one character after another."""
    start = text.find("{")
    depth, quoted, escaped = 0, False, False
    for at in range(max(start, 0), len(text)):
        sign = text[at]
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
        elif not quoted and sign in "{}":
            depth += 1 if sign == "{" else -1
            if depth == 0:
                return text[start : at + 1]
    return None


@pytest.mark.parametrize("seed", range(2))
def test_random_texts_are_read_as_the_patterns_read_them(seed: int) -> None:
    think = re.compile(r"<think>.*?</think>", re.DOTALL)
    fence = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
    split = re.compile(r"\s+penjelasan:\s*", re.IGNORECASE)
    found = 0
    for text in texts(seed, 6000):
        assert legacy.sita_caption(text) == think.sub("", text.strip()).strip()
        assert legacy._SPLIT.split(text, maxsplit=1) == split.split(text, maxsplit=1)
        fenced = fence.search(text)
        taken = braced(fenced.group(1) if fenced else text)
        try:
            value = None if taken is None else json.loads(taken)
        except ValueError:
            value = None
        assert legacy.qwen_test_runner(text).value == value, text
        found += value is not None
    assert found > 50


def test_no_text_stops_a_reader() -> None:
    for text in texts(7, 4000):
        for read in READERS.values():
            read(text)
        label = legacy.sita_vlm_gen(text).label
        assert label is None or label == label.lower().strip()


UNITS = [
    "<think>", "</think>", "``` ", "```", "Label", "Label: ", "Label:\n", "a ", " ", "\n", "**", "** ", "*", "[",
    '"ab', '{"', "{", "\\", "penjelasan: ",
    "   penjelasan", "kesimpulan:", "Analisis ", "[/INST]", "]",
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_eight_times_the_text_takes_no_sixty_four_times_the_time(reader: str) -> None:
    read = READERS[reader]
    for unit in UNITS:
        for text in (unit, f"x{unit}"):
            small, large = (text[:1] + text[1:] * (size // len(unit)) + "y" for size in (15_000, 120_000))
            spent = [min(seconds(read, each) for _ in range(2)) for each in (small, large)]
            assert spent[1] < 30 * spent[0] + 0.05, (unit, spent)


def seconds(read: Callable[[str], Any], text: str) -> float:
    start = time.process_time()
    read(text)
    return time.process_time() - start
