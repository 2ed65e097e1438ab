"""Decode answers as earlier evaluators did, so that their numbers can be reproduced.

Each function keeps the behaviour of its original, mistakes included; its docstring lists them. `decode`
never uses these functions. The regular expressions are facts of those programs (SITA's generative
evaluators, qwen-test-runner's extraction); the code is our own."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from dfkeval.parsing.tags import THINK_CLOSE, THINK_OPEN

_LABEL: Final = re.compile(r"Label\s*:\s*(.+?)(?:\n|$)", re.IGNORECASE)
_ANALYSIS: Final = re.compile(r"Analisis\s*:\s*(.+)", re.IGNORECASE | re.DOTALL)
_LABEL_V3: Final = re.compile(r"Label:\s*(.+?)(?:\n|$|\.)", re.IGNORECASE)
_SPLIT: Final = re.compile(r"(?<!\s)\s++penjelasan:\s*", re.IGNORECASE)
_BOLD: Final = re.compile(r"\*{2}(.+?)\.?\*{2,4}")
_FENCE: Final = re.compile(r"```(?:json)?+\s*+")

_MERGED: Final = {
    "non-dfk": "netral", "non_dfk": "netral", "nondfk": "netral", "fakta": "netral",
    "ujaran_kebencian": "ujaran kebencian", "disinformasi_dan_ujaran_kebencian": "ujaran kebencian",
}  # fmt: skip
_MERGED_TEXT: Final = {**_MERGED, "bukan_dfk": "netral", "bukan dfk": "netral"}
_RAW_TEXT: Final = {
    **dict.fromkeys(("non-dfk", "non_dfk", "nondfk", "bukan_dfk", "bukan dfk"), "non_dfk"),
    "ujaran_kebencian": "ujaran kebencian", "disinformasi_dan_ujaran_kebencian": "ujaran kebencian",
}  # fmt: skip


class LabelAndExplanation(NamedTuple):
    """What a SITA evaluator reads; None for what it does not find."""

    label: str | None
    explanation: str | None


def _visible(text: str) -> str:
    """Return the text without the think blocks that are closed; a pattern would look for each end up to the end."""
    kept, at = [], 0
    while (start := text.find(THINK_OPEN, at)) >= 0 and (end := text.find(THINK_CLOSE, start)) >= 0:
        kept.append(text[at:start])
        at = end + len(THINK_CLOSE)
    return "".join([*kept, text[at:]]).strip()


def _folded(label: str, table: dict[str, str]) -> str | None:
    folded = label.lower().strip().rstrip(".")
    return table.get(folded, folded) or None


def sita_vlm_gen(text: str) -> LabelAndExplanation:
    """Read the first `Label:` anywhere and everything behind the first `Analisis:`, as SITA's `vlm_gen` does.

    Known mistakes: `Label: **Fitnah**` gives "**fitnah**"; `Sub-label: a` counts as a label; an unclosed
    think block is read; invented labels pass through."""
    seen = _visible(text)
    label, analysis = _LABEL.search(seen), _ANALYSIS.search(seen)
    return LabelAndExplanation(
        _folded(label.group(1), _MERGED) if label else None,
        analysis.group(1).strip() if analysis else None,
    )


def sita_caption(text: str) -> str:
    """Return the whole text without think blocks, as SITA's `vlm_captioning` does."""
    return _visible(text)


def sita_text_gen(text: str, normalize: bool = True) -> LabelAndExplanation:
    """Read the first line up to "penjelasan:" as the label, as SITA's `text_gen` does.

    The explanation is what follows "penjelasan:" on that line, else the other lines, else what follows the bold
    label or the first full stop; `Analisis:` is looked for only where the first line has no label.

    Known mistakes: any first line becomes a label; text behind the first line is lost if "penjelasan:" stands
    on it; `LABEL:` stays a part of the label.

    Args:
        text: the answer.
        normalize: whether labels are merged to four classes."""
    seen = _visible(text)
    line, _, rest = seen.partition("\n")
    head, *marked = _SPLIT.split(line.strip(), maxsplit=1)
    bold = _BOLD.search(head)
    if bold:
        label, beside = bold.group(1).strip().rstrip("."), head[bold.end() :]
    else:
        label, stop, beside = _unmarked(head.replace("Label:", "")).partition(".")
        label = label.strip() if stop else label
    explanation = (marked[0] if marked else rest.strip()) or beside.strip()
    if not label:
        named, analysis = _LABEL.search(seen), _ANALYSIS.search(seen)
        label = _unmarked(named.group(1)) if named else ""
        explanation = (analysis.group(1).strip() if analysis else "") or explanation
    return LabelAndExplanation(_text_label(label, normalize), explanation or None)


def sita_text_gen_v3(text: str, normalize: bool = True) -> LabelAndExplanation:
    """Read the first `Label:`, and the text between "penjelasan:" and "kesimpulan:", as SITA's `text_gen_v3`
    does.

    Known mistakes: a label inside the explanation wins; "kesimpulan:" inside the explanation cuts it.

    Args:
        text: the answer.
        normalize: whether labels are merged to four classes."""
    seen = _visible(text)
    marked = _LABEL_V3.search(seen)
    explanation = seen[: _find(seen, "kesimpulan:", len(seen))]
    start = _find(explanation, "penjelasan:", -1)
    explanation = explanation[start + len("penjelasan:") :] if start >= 0 else explanation
    label = _unmarked(marked.group(1)) if marked else ""
    return LabelAndExplanation(_text_label(label, normalize), explanation.strip() or None)


def _unmarked(label: str) -> str:
    """Return the label without blanks, then without stars, then without full stops around it."""
    return label.strip().strip("*").strip(".")


def _find(text: str, word: str, otherwise: int) -> int:
    at = text.lower().find(word)
    return at if at >= 0 else otherwise


def _text_label(label: str, normalize: bool) -> str | None:
    folded = _folded(label, _MERGED_TEXT if normalize else _RAW_TEXT)
    return folded if normalize or folded is None else folded.replace("-", "_")


def sita_keywords(text: str) -> list[str]:
    """Read the first `[…]` as JSON, else from the last "[" to the last "]", else every quoted text of 3
    to 100 characters, as SITA's `keyword_gen` does.

    Known mistakes: a nested list ends at its first "]"; null becomes "None"; `\\"` is unescaped before the
    JSON is read, so quotes inside a keyword break it."""
    seen = text.rpartition("[/INST]")[2].strip() if "[/INST]" in text else text
    seen = seen.replace('\\"', '"')
    start, stop = seen.find("["), seen.rfind("]")
    first = seen.find("]", max(start, 0))
    keywords = _json_list(seen[start : first + 1]) if 0 <= start < first else None
    if not keywords:
        start = seen.rfind("[")
        keywords = _json_list(seen[start : stop + 1]) if 0 <= start < stop else None
    if keywords is None:
        keywords = _QUOTED.findall(seen)
    return [str(keyword).strip() for keyword in keywords]


def _json_list(text: str) -> list[Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


_QUOTED: Final = re.compile(r'"([^"]{3,100})"')


class Extracted(NamedTuple):
    """What qwen-test-runner extracts: the object, or None and its error message."""

    value: dict[str, Any] | None
    error: str | None


def qwen_test_runner(text: str) -> Extracted:
    """Extract an object as qwen-test-runner does: the first code fence if any, then the first balanced `{…}`,
    then `json.loads`.

    Known mistakes: a native tool call yields the first object inside a parameter; a fence inside a string
    breaks the reading. Its check against the caption class (lax, extras ignored) is the caller's."""
    fence = _FENCE.search(text)
    close = -1 if fence is None else text.find("```", fence.end())
    braced = _balanced(text if fence is None or close < 0 else text[fence.end() : close])
    if braced is None:
        return Extracted(None, "no JSON object found")
    try:
        value = json.loads(braced)
    except (ValueError, RecursionError) as bad:
        return Extracted(None, f"json decode: {bad}")
    return Extracted(value, None)


_STEPS: Final = re.compile(r'\\.|["{}]', re.DOTALL)


def _balanced(text: str) -> str | None:
    """Return the first `{…}` whose braces balance, without what stands between quotes or behind a
    backslash."""
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
