"""BERTScore of captions under SITA's names (`vlm_captioning`): bertscore_precision, bertscore_recall,
bertscore_f1.

Captions are read as in `sita_captioning`; model, layer, dtype and cache come from the section `bertscore`, as
in `sita_bertscore`."""

from __future__ import annotations

from collections.abc import Sequence

from dfkdata.schemas import Prose
from dfkeval.metrics import Measured, Metric, Scoring, _bertscore, _sita
from dfkeval.metrics._prose import COLUMNS, NAMES, table
from dfkeval.types import Sample


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 4) statistics: n, precision, recall, f1."""
    options = _sita.bertscore_of(scoring)
    places, answers, golds = _sita.captions(samples, scoring)
    scores = _bertscore.score(answers, golds, **options.model_dump())
    values = table(len(samples), places, scores)
    return Measured(COLUMNS, values, values[:, 0] > 0, _bertscore.settings(options, scores))


METRIC = Metric(
    measure,
    _sita.bertscore_values,
    needs=(Prose,),
    reproduces="SITA vlm_captioning",
    unbounded=NAMES,
    settings=_bertscore.SETTINGS,
)
