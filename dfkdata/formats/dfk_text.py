"""DFK claims with reference articles as CSV: instruction, input, output, _label.

`input` holds the claim and, behind "Artikel Rujukan:", the article; `output` is "Label: **Fitnah.**
penjelasan: ...". The whole explanation is kept. A label column that contradicts the label in the text is a
reject (with `--rule LABEL_CONFLICT=warn` the text counts), and so is an output of any other form. `--schema
dfk_text_raw` keeps five classes, and `--schema dfk_explained` puts the explanation first."""

from __future__ import annotations

import re

from dfkdata.common.config import Config
from dfkdata.common.hashing import content_id
from dfkdata.formats import Fit, Likeness, Row, need, text
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import DFK, DFK_RAW, fold_spelling

SCHEMA: str | None = "dfk_text"
COLUMNS = (frozenset({"input", "output", "_label"}),)
_OUTPUT = re.compile(r"\s*Label\s*:\s*\*\*([^*\n]+?)\.?\*{2,4}\.?\s*penjelasan\s*:\s*", re.IGNORECASE)
_ARTICLE = "Artikel Rujukan:"


class Options(Config):
    """This format has no options."""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a claim; the label's own column sets it apart from instructions."""
    needed = COLUMNS[0] <= row.keys()
    return Likeness(Fit.TYPICAL, "columns input, output, _label") if needed else None


def record(row: Row, source: str, options: Options) -> Record:
    """Return one claim; an output of another form or an empty claim raises `RowError`."""
    claim, _, article = need(row, "input").partition(_ARTICLE)
    claim, article = claim.strip(), article.strip()
    if not claim:
        raise RowError(
            "FIELD_EMPTY", "the input holds an article and no claim", path="input", value=row.get("input")
        )
    output = need(row, "output")
    head = _OUTPUT.match(output)
    if head is None or not (explanation := output[head.end() :].strip()):
        hint = "write Label: **Fitnah.** penjelasan: ..."
        raise RowError(
            "GOLD_INVALID", "the output is not of the form", path="output", value=output, hint=hint
        )
    label, column = head.group(1).strip(), text(row, "_label")
    prompt = f"{claim}\n\n{_ARTICLE} {article}" if article else claim
    name = content_id(prompt, label, explanation)
    return Record(
        id=name,
        group=content_id(claim),
        source=source,
        fields={"text": prompt},
        gold={"label": label, "analisis": explanation},
        meta={"raw_label": column or label},
        warnings=() if not column or _agree(label, column) else (_conflict(label, column),),
    )


def _conflict(label: str, column: str) -> RowError:
    reason, hint = f"the column says {column!r}, the text {label!r}", "correct one of them; the text's counts"
    if not (DFK.resolve(column) or DFK_RAW.resolve(column)):
        hint = "--labels MAP.yaml says which class the column means, also by its number"
    return RowError("LABEL_CONFLICT", reason, path="_label", value=column, hint=hint)


def _agree(one: str, other: str) -> bool:
    """Return whether two spellings mean the same class, in five classes or, if one is "Netral", in four."""
    if fold_spelling(one) == fold_spelling(other):
        return True
    raw = DFK_RAW.resolve(one), DFK_RAW.resolve(other)
    merged = DFK.resolve(one), DFK.resolve(other)
    if all(raw):
        return raw[0].label == raw[1].label  # type: ignore[union-attr]  # all of them are set
    return all(merged) and merged[0].label == merged[1].label  # type: ignore[union-attr]  # all of them are set
