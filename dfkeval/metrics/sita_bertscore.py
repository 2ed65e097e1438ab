"""BERTScore under SITA's names: bertscore_precision, bertscore_recall, bertscore_f1.

What differs from `bertscore`, on purpose and only here: explanations are read by the evaluator that the
section `sita` names; pairs with an empty side are dropped; an explanation that was not found is the whole raw
output, which is scored. Model, layer, dtype and cache come from the section `bertscore`; SITA's own are
multilingual BERT at layer 9, which is what an empty section means. SITA has neither idf nor windows: these
keys of the section are for `bertscore` alone."""

from __future__ import annotations

from collections.abc import Sequence

from dfkdata.schemas import Label
from dfkeval.metrics import Measured, Metric, Scoring, _bertscore, _sita
from dfkeval.metrics._prose import COLUMNS, NAMES, table
from dfkeval.types import Sample


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 4) statistics: n, precision, recall, f1; dropped pairs have zero rows."""
    options = _sita.bertscore_of(scoring)
    read = list(_sita.read(samples, scoring))
    places = [index for index, pair in enumerate(read) if pair is not None and pair.texts]
    compared = [pair for pair in read if pair is not None and pair.texts]
    answers, golds = [pair.explanation for pair in compared], [pair.reference for pair in compared]
    scores = _bertscore.score(answers, golds, **options.model_dump())
    values = table(len(samples), places, scores)
    details = _bertscore.settings(options, scores) | _sita.options_of(scoring).details
    dropped = sum(pair is not None and not pair.texts for pair in read)
    return Measured(COLUMNS, values, values[:, 0] > 0, details | {"dropped_pairs": dropped})


METRIC = Metric(
    measure,
    _sita.bertscore_values,
    needs=(Label,),
    reproduces="SITA",
    unbounded=NAMES,
    settings=(*_bertscore.SETTINGS, *_sita.SETTINGS),
)
