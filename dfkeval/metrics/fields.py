"""Compare the gold dict with the answer's dict, field by field.

f1, precision, recall      over the leaves of all comparable fields, summed over samples
<list>.f1 …                the same for one list field, or for the lists inside its objects (attributes)
<enum>.accuracy, .macro_f1 one enum; a slot that is left out means its default; macro over the gold's values
exact                      share of answers whose leaves all agree
soft_f1 …, <list>.soft_f1  as f1 over the lists, where texts that mean the same match; only with a sentence
                           encoder in the options: `fields: {model: NAME}`

All gold leaves count as missed by an answer that is not valid. Leaves are compared without case."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dfkdata.schemas import Choice, Grounded, Label
from dfkeval.metrics import Floats, Measured, Metric, Scoring, _soft_match, column, f1, fields_of, ratio
from dfkeval.metrics._leaves import Leaf, Value, choice, leaves
from dfkeval.metrics._soft_match import Options as Options
from dfkeval.types import Sample

ALL = "*"
CELL = "\x1f"  # joins the parts of a cell's column name; no enum value holds it
PARTS = ("hit", "wrong", "missed")
SOFT = "soft "  # begins the columns of soft matches
Bags = tuple[Counter[Leaf], Counter[Leaf]]  # gold, answer


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, K) statistics: n, exact, hit/wrong/missed of all leaves and of each kind, cells of each enum."""
    options = scoring.options_of("fields", Options)
    enums = {name: set[str]() for name in fields_of(scoring.schema, (Choice,))}
    kinds, counts, bags = set[str](), _Counts(), list[Bags | None]()
    for at, sample in enumerate(samples):
        gold, answer = _pair(sample)
        bag = None if gold is None else (leaves(gold, scoring.schema), leaves(answer, scoring.schema))
        if options.model is not None:
            bags.append(bag)
        if bag is None or gold is None:
            continue
        kinds.update(leaf[0] for side in bag for leaf in side)
        row = {"n": 1, "exact": int(sample.value is not None and bag[0] == bag[1])} | _parts(*bag)
        for name, seen in enums.items():
            sides = [choice(side, scoring.schema, name) for side in (gold, answer)]
            seen.update(sides)
            row[_cell(name, sides[0], sides[1] if sample.value is not None else "")] = 1
        counts.add(at, row)
    columns = ["n", "exact", *(f"{part}:{kind}" for kind in (ALL, *sorted(kinds)) for part in PARTS)]
    columns += [
        _cell(name, a, b) for name, seen in enums.items() for a in sorted(seen) for b in (*sorted(seen), "")
    ]
    values = counts.table(len(samples), columns)
    lists = [kind for kind in sorted(kinds) if kind not in scoring.schema.roles or _is_list(scoring, kind)]
    names, more = _soft_columns(bags, lists, options)
    table = np.concatenate([values, more], axis=1) if names else values
    return Measured((*columns, *names), table, values[:, 0] > 0, _soft_match.details(options))


class _Counts:
    """Numbers by row and column, before it is known which columns there are."""

    def __init__(self) -> None:
        self._rows, self._columns, self._numbers = array("Q"), array("I"), array("d")
        self._names: dict[str, int] = {}

    def add(self, row: int, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            self._rows.append(row)
            self._columns.append(self._names.setdefault(name, len(self._names)))
            self._numbers.append(number)

    def table(self, count: int, columns: Sequence[str]) -> Floats:
        """Return the numbers as a table of `count` rows; what was not added is 0."""
        place = {name: index for index, name in enumerate(columns)}
        values = np.zeros((count, len(columns)))
        where = np.array([place[name] for name in self._names], dtype=np.int64)
        values[np.array(self._rows, dtype=np.int64), where[np.array(self._columns, dtype=np.int64)]] = (
            self._numbers
        )
        return values


def _is_list(scoring: Scoring, kind: str) -> bool:
    return isinstance(scoring.schema.roles[kind], Grounded)


def _soft_columns(
    bags: Sequence[Bags | None], kinds: Sequence[str], options: Options
) -> tuple[list[str], Floats]:
    """Return names and (N, K) counts of soft matches, of all lists and of each kind; none without an encoder."""
    if options.model is None:
        return [], np.zeros((len(bags), 0))
    texts = {
        _soft_match.words(leaf) for bag in bags if bag for side in bag for leaf in side if leaf[0] in kinds
    }
    vectors = _soft_match.vectors(texts, options)
    names = [f"{SOFT}{part}:{kind}" for kind in (ALL, *kinds) for part in PARTS]
    values = np.zeros((len(bags), len(names)))
    for row, bag in zip(values, bags, strict=True):
        if bag is None:
            continue
        for place, kind in enumerate(kinds, start=1):
            gold, answer = (_soft_match.of_kind(side, kind) for side in bag)
            hit = _soft_match.matches(gold, answer, vectors, options.threshold)
            counts = np.array([hit, answer.total() - hit, gold.total() - hit])
            row[3 * place : 3 * place + 3] = counts
            row[:3] += counts
    return names, values


def _cell(name: str, gold: str, answer: str) -> str:
    """Return the column of the samples whose enum `name` is `gold` and was answered `said` ("" if invalid)."""
    return CELL.join(("cell", name, gold, answer))


def _pair(sample: Sample) -> tuple[Value | None, Value]:
    """Return gold and answer, which is empty if it is invalid; (None, ...) if there is nothing to compare."""
    gold = sample.gold if sample.answered else None
    return gold, sample.value or {}


def _parts(gold: Counter[Leaf], answer: Counter[Leaf]) -> Counter[str]:
    """Return the numbers of leaves in both, in the answer alone, and in the gold alone."""
    counts = Counter[str]()
    for part, bag in zip(PARTS, (gold & answer, answer - gold, gold - answer), strict=True):
        for leaf, number in bag.items():
            counts[f"{part}:{leaf[0]}"] += number
            counts[f"{part}:{ALL}"] += number
    return counts


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return the values of the table at the top of the module."""
    n = column(sums, columns, "n")
    out: dict[str, Floats] = {}
    for kind in [name.partition(":")[2] for name in columns if name.startswith("hit:")]:
        hit, wrong, missed = (column(sums, columns, f"{part}:{kind}") for part in PARTS)
        prefix = "" if kind == ALL else kind + "."
        out[prefix + "f1"] = f1(hit, wrong, missed)
        out[prefix + "precision"] = _or_zero(ratio(hit, hit + wrong), hit + missed)
        out[prefix + "recall"] = ratio(hit, hit + missed)
    for kind in [name.partition(":")[2] for name in columns if name.startswith(SOFT + "hit:")]:
        hit, wrong, missed = (column(sums, columns, f"{SOFT}{part}:{kind}") for part in PARTS)
        prefix = "" if kind == ALL else kind + "."
        out[prefix + "soft_f1"] = f1(hit, wrong, missed)
        out[prefix + "soft_precision"] = _or_zero(ratio(hit, hit + wrong), hit + missed)
        out[prefix + "soft_recall"] = ratio(hit, hit + missed)
    out["exact"] = ratio(column(sums, columns, "exact"), n)
    for name in dict.fromkeys(name.split(CELL)[1] for name in columns if name.startswith("cell" + CELL)):
        out |= _enum(sums, columns, name, n)
    return out


def _or_zero(values: Floats, there: Floats) -> Floats:
    """Return 0 instead of NaN if nothing was answered although the gold holds something."""
    return np.where(np.isnan(values) & (there > 0), 0.0, values)


def _enum(sums: Floats, columns: tuple[str, ...], name: str, n: Floats) -> dict[str, Floats]:
    start = _cell(name, "", "").rstrip(CELL) + CELL
    named = [(place, title.split(CELL)) for place, title in enumerate(columns) if title.startswith(start)]
    cells = [(place, parts[2], parts[3]) for place, parts in named]
    golds = list(dict.fromkeys(gold for _, gold, _ in cells))
    scores = []
    hits = np.zeros(len(sums))
    for value in golds:
        hit = _total(sums, [place for place, a, b in cells if a == value == b])
        wrong = _total(sums, [place for place, a, b in cells if a != value == b])
        missed = _total(sums, [place for place, a, b in cells if a == value != b])
        hits = hits + hit
        scores.append(np.where(hit + missed > 0, f1(hit, wrong, missed), np.nan))
    table = np.stack(scores, axis=1) if scores else np.full((len(sums), 1), np.nan)
    macro = ratio(np.nansum(table, axis=1), np.isfinite(table).sum(axis=1).astype(float))
    return {f"{name}.accuracy": ratio(hits, n), f"{name}.macro_f1": macro}


def _total(sums: Floats, places: list[int]) -> Floats:
    total: Floats = sums[:, places].sum(axis=1)
    return total


METRIC = Metric(
    measure,
    reduce,
    needs=(Grounded, Choice, Label),
    binary={"exact": "exact"},
    settings=("model", "weights_sha256", "dtype", "threshold"),
)
