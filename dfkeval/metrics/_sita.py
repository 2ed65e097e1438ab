"""Read gold and answer as SITA's evaluators do, for the metrics whose names begin with `sita`.

Guarantees:

- Gold is read in the same way as the answer. For the text evaluators it is first written out in the schema's own
  form, since their originals parse the reference answer as text, with the same losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from pydantic import model_validator

from dfkdata.common.config import Config
from dfkdata.rows.messages import write_text
from dfkdata.schemas import Label, Prose, Schema, TextForm
from dfkeval.metrics import Floats, Scoring, _bertscore, fields_of
from dfkeval.metrics._prose import means
from dfkeval.parsing import legacy
from dfkeval.types import Sample

UNPARSED, EMPTY = "<UNPARSED>", "<EMPTY>"
#: Details that decide the numbers.
SETTINGS = ("evaluator", "normalize")


class Options(Config):
    """Options of the metrics `sita` and `sita_bertscore`.

    Attributes:
        evaluator: Whose rules read the answers.
        normalize: Whether facts and other posts without violation are merged into "netral", as SITA's
            `normalize_labels` does; only the text evaluators can leave it out.
    """

    evaluator: Literal["vlm_gen", "text_gen", "text_gen_v3"] = "vlm_gen"
    normalize: bool = True

    @model_validator(mode="after")
    def _merging(self) -> Self:
        if self.evaluator == "vlm_gen" and not self.normalize:
            raise ValueError(
                "vlm_gen always merges labels: leave normalize out, or take text_gen, text_gen_v3"
            )
        return self

    def pair(self, text: str) -> legacy.LabelAndExplanation:
        """Return the label and the explanation that the evaluator reads."""
        match self.evaluator:
            case "vlm_gen":
                return legacy.sita_vlm_gen(text)
            case "text_gen":
                return legacy.sita_text_gen(text, self.normalize)
            case "text_gen_v3":
                return legacy.sita_text_gen_v3(text, self.normalize)

    @property
    def details(self) -> dict[str, Any]:
        """Return the details that two runs must share to be compared."""
        return {"evaluator": self.evaluator, "normalize": self.normalize}


class Read(NamedTuple):
    """One row: the gold's and the answer's label and explanation."""

    gold: str
    predicted: str
    reference: str
    explanation: str

    @property
    def texts(self) -> bool:
        """Return whether both explanations have text; other pairs are dropped from the text metrics."""
        return bool(self.reference and self.explanation)


def options_of(scoring: Scoring) -> Options:
    """Return the options `sita` of the configuration."""
    return scoring.options_of("sita", Options)


def read(samples: Sequence[Sample], scoring: Scoring) -> Iterator[Read | None]:
    """Read each row; None for one without answer, without gold, or without a readable gold label."""
    options = options_of(scoring)
    return (_read(sample, scoring.schema, options) for sample in samples)


def captions(samples: Sequence[Sample], scoring: Scoring) -> tuple[list[int], list[str], list[str]]:
    """Return what `vlm_captioning` compares.

    Returns:
        Places of the rows with answer and gold caption, the answers ("<EMPTY>" for nothing), and the gold captions.
    """
    rows = list(each_caption(samples, scoring))
    return [index for index, _, _ in rows], [answer for _, answer, _ in rows], [gold for _, _, gold in rows]


def each_caption(samples: Sequence[Sample], scoring: Scoring) -> Iterator[tuple[int, str, str]]:
    """Yield what `captions` returns, one row at a time."""
    field = fields_of(scoring.schema, (Prose,))[0]
    return (
        (index, legacy.sita_caption(sample.text) or EMPTY, gold)
        for index, sample in enumerate(samples)
        if sample.answered and isinstance(gold := (sample.gold or {}).get(field), str) and gold.strip()
    )


def bertscore_of(scoring: Scoring) -> _bertscore.Options:
    """Return the options `bertscore` without what SITA does not have: idf and windows."""
    return scoring.options_of("bertscore", _bertscore.Options).model_copy(
        update={"idf": False, "windows": False}
    )


def _read(sample: Sample, schema: Schema, options: Options) -> Read | None:
    if not sample.answered or sample.gold is None:
        return None
    gold = _gold(sample.gold, schema, options)
    if gold.label is None:
        return None
    pair = options.pair(sample.text)
    explanation = pair.explanation or sample.text.strip()
    return Read(gold.label, pair.label or UNPARSED, gold.explanation or "", explanation)


def _gold(gold: Mapping[str, Any], schema: Schema, options: Options) -> legacy.LabelAndExplanation:
    """Return the gold label and explanation, as the evaluator reads them."""
    form = schema.form
    if options.evaluator != "vlm_gen" and isinstance(form, TextForm):
        whole = all(isinstance(gold.get(field), str) for _, field in form.parts)
        return options.pair(write_text(dict(gold), form)) if whole else legacy.LabelAndExplanation(None, None)
    label, prose = fields_of(schema, (Label,))[0], fields_of(schema, (Prose,))
    name, text = gold.get(label), gold.get(prose[0]) if prose else None
    if not isinstance(name, str):
        return legacy.LabelAndExplanation(None, None)
    return options.pair(f"Label: {name}\n\nAnalisis: {text if isinstance(text, str) else ''}")


def bertscore_values(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return BERTScore's means under SITA's names, over the pairs that SITA counts."""
    return {f"bertscore_{name}": value for name, value in means(sums, columns).items()}
