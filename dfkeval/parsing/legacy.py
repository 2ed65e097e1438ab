"""Decoders of earlier evaluators, reproduced so that their numbers can be reproduced. Never used by `decode`.

Each keeps the behaviour of its original, mistakes included; what they get wrong is said in their docstrings.
The regular expressions are facts of those programs (SITA's generative evaluators, qwen-test-runner's
extraction); the code is our own."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

_THINK: Final = re.compile(r"<think>.*?</think>", re.DOTALL)
_LABEL: Final = re.compile(r"Label\s*:\s*(.+?)(?:\n|$)", re.IGNORECASE)
_ANALYSIS: Final = re.compile(r"Analisis\s*:\s*(.+)", re.IGNORECASE | re.DOTALL)
_LABEL_V3: Final = re.compile(r"Label:\s*(.+?)(?:\n|$|\.)")
_SPLIT: Final = re.compile(r"\s+penjelasan:\s*", re.IGNORECASE)
_BOLD: Final = re.compile(r"\*{2}(.+?)\.?\*{2,4}")
_FENCE: Final = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)

_MERGED: Final = {
    "non-dfk": "netral", "non_dfk": "netral", "nondfk": "netral", "fakta": "netral",
    "ujaran_kebencian": "ujaran kebencian", "disinformasi_dan_ujaran_kebencian": "ujaran kebencian",
}  # fmt: skip
_MERGED_TEXT: Final = {**_MERGED, "bukan_dfk": "netral", "bukan dfk": "netral"}
_RAW_TEXT: Final = {
    **dict.fromkeys(("non-dfk", "non_dfk", "nondfk", "bukan_dfk", "bukan dfk"), "non_dfk"),
    "ujaran_kebencian": "ujaran kebencian", "disinformasi_dan_ujaran_kebencian": "ujaran kebencian",
}  # fmt: skip


class Pair(NamedTuple):
    """What a SITA evaluator reads: a label and an explanation, None where nothing was found."""

    label: str | None
    explanation: str | None


def _visible(text: str) -> str:
    return _THINK.sub("", text.strip()).strip()


def _folded(label: str, table: dict[str, str]) -> str:
    folded = label.lower().strip().rstrip(".")
    return table.get(folded, folded)


def sita_vlm_gen(text: str) -> Pair:
    """SITA's `vlm_gen`: the first `Label:` anywhere and everything behind the first `Analisis:`.

    Known faults kept: `Label: **Fitnah**` gives "**fitnah**"; `Sub-label: a` counts as a label; an unclosed
    think block is read; invented labels pass through."""
    seen = _visible(text)
    label, analysis = _LABEL.search(seen), _ANALYSIS.search(seen)
    return Pair(
        _folded(label.group(1), _MERGED) if label else None,
        analysis.group(1).strip() if analysis else None,
    )


def sita_caption(text: str) -> str:
    """SITA's `vlm_captioning`: the whole text without think blocks."""
    return _visible(text)


def sita_text_gen(text: str, normalize: bool = True) -> Pair:
    """SITA's `text_gen`: the first line, split at "penjelasan:", is the label; `normalize` merges to four
    classes.

    Known faults kept: any first line becomes a label; text behind the first line is lost where "penjelasan:"
    stands on it."""
    seen = _visible(text)
    head, _, rest = seen.partition("\n")
    parts = _SPLIT.split(head, maxsplit=1)
    bold = _BOLD.search(parts[0])
    label = (
        bold.group(1) if bold else parts[0].replace("Label:", "").strip().strip("*.").split(".")[0].strip()
    )
    explanation = parts[1].strip() if len(parts) > 1 else rest.strip()
    if not label:
        found = _LABEL.search(seen)
        label = found.group(1) if found else ""
    return Pair(_text_label(label, normalize) if label else None, explanation or None)


def sita_text_gen_v3(text: str, normalize: bool = True) -> Pair:
    """SITA's `text_gen_v3`: the first `Label:`, and the text between "penjelasan:" and "kesimpulan:".

    Known faults kept: a label inside the explanation wins; "kesimpulan:" inside the explanation cuts it."""
    seen = _visible(text)
    found = _LABEL_V3.search(seen)
    explanation = seen[: _find(seen, "kesimpulan:", len(seen))]
    start = _find(explanation, "penjelasan:", -1)
    explanation = explanation[start + len("penjelasan:") :] if start >= 0 else explanation
    label = found.group(1).strip().strip("*.") if found else None
    return Pair(_text_label(label, normalize) if label else None, explanation.strip() or None)


def _find(text: str, word: str, otherwise: int) -> int:
    at = text.lower().find(word)
    return at if at >= 0 else otherwise


def _text_label(label: str, normalize: bool) -> str:
    return _folded(label, _MERGED_TEXT) if normalize else _folded(label, _RAW_TEXT).replace("-", "_")


def sita_keywords(text: str) -> list[str]:
    """SITA's `keyword_gen`: the first `[…]` as JSON, else the last "[" to the last "]", else every quoted
    text of 3 to 100 characters.

    Known faults kept: a nested list ends at its first "]"; null becomes "None"; `\\"` is unescaped before the
    JSON is read, so quotes inside a keyword break it."""
    seen = text.rpartition("[/INST]")[2].strip() if "[/INST]" in text else text
    seen = seen.replace('\\"', '"')
    start, stop = seen.find("["), seen.rfind("]")
    first = seen.find("]", max(start, 0))
    found = _json_list(seen[start : first + 1]) if 0 <= start < first else None
    if not found:
        start = seen.rfind("[")
        found = _json_list(seen[start : stop + 1]) if 0 <= start < stop else None
    if found is None:
        found = _QUOTED.findall(seen)
    return [str(each).strip() for each in found]


def _json_list(text: str) -> list[Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


_QUOTED: Final = re.compile(r'"([^"]{3,100})"')


class Extracted(NamedTuple):
    """What qwen-test-runner's extraction gives: the object, or None and its error message."""

    value: dict[str, Any] | None
    error: str | None


def qwen_test_runner(text: str) -> Extracted:
    """qwen-test-runner's extraction: the first code fence if any, then the first balanced `{…}`, then
    `json.loads`.

    Known faults kept: a native tool call yields the first object inside a parameter; a fence inside a string
    breaks the reading. Its check against the caption class (lax, extras ignored) is the caller's."""
    fenced = _FENCE.search(text)
    found = _balanced(fenced.group(1) if fenced else text)
    if found is None:
        return Extracted(None, "no JSON object found")
    try:
        value = json.loads(found)
    except (ValueError, RecursionError) as bad:
        return Extracted(None, f"json decode: {bad}")
    return Extracted(value, None)


_STEPS: Final = re.compile(r'\\.|["{}]', re.DOTALL)


def _balanced(text: str) -> str | None:
    """The first `{…}` whose braces balance; what stands between quotes or behind a backslash is skipped."""
    start, depth, quoted = text.find("{"), 0, False
    for match in _STEPS.finditer(text, max(start, 0)):
        sign = match.group()
        if sign == '"':
            quoted = not quoted
        elif not quoted and sign in "{}":
            depth += 1 if sign == "{" else -1
            if depth == 0:
                return text[start : match.end()]
    return None
