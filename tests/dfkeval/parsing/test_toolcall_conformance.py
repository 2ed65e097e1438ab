"""The conformance table: every row whole, one character at a time and cut at random, in both modes."""

from __future__ import annotations

import pytest

from dfkeval.testing.conformance import Case, cases, drive, explain

CASES = list(cases())


@pytest.mark.parametrize("cut", ["whole", "characters", "random"])
@pytest.mark.parametrize("mode", ["lenient", "strict"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_answer_is_the_tables_answer_however_the_text_is_cut(case: Case, mode, cut):
    assert explain(case, drive(case, mode, cut, seed=len(case.text)), mode) is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_lenient_returns_every_call_that_strict_returns(case: Case):
    strict, lenient = drive(case, "strict"), drive(case, "lenient")
    assert all(call in lenient.calls for call in strict.calls)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_segments_join_to_the_text(case: Case):
    assert "".join(segment.source for segment in drive(case, "lenient").segments) == case.text


def test_every_row_has_an_id_of_its_own():
    assert len({case.id for case in CASES}) == len(CASES) > 150
