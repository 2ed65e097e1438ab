"""Reproduce the published ROUGE-L of SITA's `vlm_captioning`, under SITA's names.

What differs from `rouge`, on purpose and only here: the whole text without think blocks is the caption, valid
or not; an empty one is the word "<EMPTY>", which is scored; only a-z and 0-9 are seen. Rows without a gold
caption are dropped, as there; their think blocks stay. BERTScore by the same reading is
`sita_captioning_bertscore`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfkdata.schemas import Prose
from dfkeval.metrics import Floats, Measured, Metric, Scoring, _sita
from dfkeval.metrics import _rouge_l as rouge_l
from dfkeval.metrics._prose import COLUMNS, means
from dfkeval.types import Sample


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 4) statistics: n, precision, recall, f1."""
    values = np.zeros((len(samples), len(COLUMNS)))
    for place, *texts in _sita.each_caption(samples, scoring):
        values[place] = (1, *rouge_l.latin_pair(*texts))
    return Measured(COLUMNS, values, values[:, 0] > 0)


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the means over rows: rouge_l_precision, rouge_l_recall, rouge_l_f1."""
    return {f"rouge_l_{name}": value for name, value in means(sums, columns).items()}


METRIC = Metric(measure, reduce, needs=(Prose,), reproduces="SITA vlm_captioning")
