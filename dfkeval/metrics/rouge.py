"""ROUGE-L over the answer's prose fields: the longest common subsequence of words.

`unicode: NFC` or `NFKC` adds the same three numbers of texts in that Unicode form (`nfc_f1` or `nfkc_f1`, …): a letter
with its accent in one character or in two is then one word, and with NFKC so are full-width letters and ligatures. The
plain numbers stay beside them, as the rouge_score package gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dfkdata.common.config import Config
from dfkdata.common.unicode_forms import normalize
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.metrics._prose import COLUMNS, NAMES, each_pair, means
from dfkeval.metrics._rouge_l import rouge_l as rouge_l
from dfkeval.metrics._rouge_l import score_pair
from dfkeval.types import Sample


class Options(Config):
    """unicode: Unicode form in which texts are compared as well, "NFC" or "NFKC"; None for as they are alone."""

    unicode: Literal["NFC", "NFKC"] | None = None


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 4) statistics: n, precision, recall, f1; with `unicode` three more of the normalised texts."""
    form = scoring.options_of("rouge", Options).unicode
    more = () if form is None else tuple(f"{form.lower()}_{name}" for name in NAMES)
    values = np.zeros((len(samples), len(COLUMNS) + len(more)))
    for place, answer, gold in each_pair(samples, scoring):
        values[place, : len(COLUMNS)] = (1, *score_pair(answer, gold))
        if form is not None:
            values[place, len(COLUMNS) :] = score_pair(normalize(form, answer), normalize(form, gold))
    details = {} if form is None else {"unicode": form}
    return Measured((*COLUMNS, *more), values, values[:, 0] > 0, details)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the means of precision, recall and f1, and of the normalised texts if there are such columns."""
    more = [name for name in columns if name not in COLUMNS]
    n = column(sums, columns, "n")
    return means(sums, columns) | {name: ratio(column(sums, columns, name), n) for name in more}


METRIC = Metric(measure, reduce)
