"""Label probabilities from a server's alternatives, against models whose probabilities are known."""

from __future__ import annotations

import math
import random

import pytest

from dfkeval.parsing.label_confidence import continuations, from_alternatives, normalised
from dfkeval.types import LabelSlot


def slot(rng: random.Random, *, apart: bool) -> LabelSlot:
    """A slot with two to five classes; `apart`: their spellings begin differently."""
    firsts = (
        rng.sample("abcdefgh", rng.randint(2, 5))
        if apart
        else [rng.choice("ab") for _ in range(rng.randint(2, 5))]
    )
    words = [
        first + "".join(rng.choices("abc ", k=rng.randint(0, 6))) + str(at) for at, first in enumerate(firsts)
    ]
    marker = rng.choice(("Label: ", "L:", '"label":"'))
    return LabelSlot(
        marker=marker,
        written={f"c{at}": word for at, word in enumerate(words)},
        closing=rng.choice(("\n\nA:", '"')),
    )


def steps(
    rng: random.Random, place: LabelSlot, shares: dict[str, float]
) -> list[tuple[str, dict[str, float]]]:
    """What a server shows that says class c with the probability shares[c], token after token."""
    before, ways = continuations(place.marker, place) or ("", {})
    said = rng.choices([*shares], weights=[*shares.values()])[0]
    cut = rng.randint(0, len(before))
    joined = rng.random() < 0.3  # one token may hold the end of the marker and the begin of the label
    heads = [before[:cut]] if joined else [part for part in (before[:cut], before[cut:]) if part]
    shown = [(head, {head: 0.0, "zz": -30.0}) for head in heads if head]
    rest = {label: (before[cut:] if joined else "") + way for label, way in ways.items()}
    at, alive = 0, dict(shares)
    while at < len(rest[said]):
        size = rng.randint(1, 4) + (len(before) - cut if joined and at == 0 else 0)
        total = math.fsum(alive.values())
        tokens: dict[str, float] = {}
        for label, share in alive.items():
            token = rest[label][at : at + size]
            tokens[token] = tokens.get(token, 0.0) + share / total
        token = rest[said][at : at + size]
        shown.append((token, {each: math.log(share) for each, share in tokens.items() if share > 0}))
        alive = {label: share for label, share in alive.items() if rest[label][at : at + size] == token}
        at += size
    return shown


@pytest.mark.parametrize("seed", range(300))
def test_classes_that_begin_differently_get_their_probabilities(seed: int) -> None:
    rng = random.Random(seed)
    place = slot(rng, apart=True)
    raw = {label: rng.random() for label in place.written}
    shares = {label: share / math.fsum(raw.values()) for label, share in raw.items()}
    assert from_alternatives(steps(rng, place, shares), place) == pytest.approx(shares)


@pytest.mark.parametrize("seed", range(300))
def test_any_classes_get_shares_that_sum_to_one(seed: int) -> None:
    rng = random.Random(seed)
    place = slot(rng, apart=False)
    raw = {label: rng.random() for label in place.written}
    shares = {label: share / math.fsum(raw.values()) for label, share in raw.items()}
    found = from_alternatives(steps(rng, place, shares), place)
    assert found is not None
    assert found.keys() == shares.keys()
    assert math.fsum(found.values()) == pytest.approx(1)
    assert min(found.values()) >= 0


@pytest.mark.parametrize("seed", range(50))
def test_normalised_scores_keep_their_differences_and_forget_what_is_added(seed: int) -> None:
    rng = random.Random(seed)
    scores = {str(at): rng.uniform(-800, 0) for at in range(rng.randint(1, 6))}
    found = normalised(scores)
    assert found is not None
    assert math.fsum(found.values()) == pytest.approx(1)
    assert found == pytest.approx(normalised({name: score - 400 for name, score in scores.items()}))
    top = max(scores, key=lambda name: scores[name])
    for name, score in scores.items():
        assert found[name] / found[top] == pytest.approx(math.exp(score - scores[top]), rel=1e-9, abs=1e-300)
