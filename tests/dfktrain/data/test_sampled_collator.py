"""Of a large file some rows stand for the others: the numbers stay right, and what is exact stays exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfktrain import Collator
from dfktrain.config.stage import Stage
from dfktrain.data import sampled_collator
from dfktrain.data.sampled_collator import SampledCollator
from dfktrain.data.stage_data import read_stage
from tests.helpers.models import image_row, text_row, write_rows

ROWS = 1_200


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sampling begins after 100 rows."""
    monkeypatch.setattr(sampled_collator, "ALL", 100)
    yield


def rows() -> list[dict[str, Any]]:
    return [
        text_row(f"t{at}", "berita ini tidak benar " * (1 + at * 7 % 40), "Label: Netral " * (1 + at % 3))
        for at in range(ROWS)
    ]


def stage_of(path: Path, **changes: Any) -> Stage:
    return Stage.model_validate({"name": "s", "data": [str(path)]} | changes)


def test_the_numbers_of_sampled_rows_are_within_the_stated_error(processor: Any, tmp_path: Path) -> None:
    stage = stage_of(write_rows(tmp_path / "rows.jsonl", rows()))
    exact = read_stage(stage, Collator(processor, max_length=4_096), 1)
    progress: list[int] = []
    reader = SampledCollator(Collator(processor, max_length=4_096), progress.append)
    sampled = read_stage(stage, reader, 1)
    assert [sample.id for sample in sampled.samples] == [sample.id for sample in exact.samples]
    assert reader.encoded < ROWS / 2 and progress == [*range(1, ROWS + 1)]
    tokens, true = (sum(map(len, data.samples)) for data in (sampled, exact))
    note = reader.note(tokens)
    assert note is not None and f"of {ROWS:,} rows" in note
    stated = float(note.split("within ")[1].split("%")[0]) / 100
    assert abs(tokens - true) / true <= max(stated, 0.005) < 0.1
    scored = [sum(sample.scored for sample in data.samples) for data in (sampled, exact)]
    assert abs(scored[0] - scored[1]) < 0.05 * scored[1]


def test_every_row_is_encoded_if_that_is_asked_for_or_there_are_few(processor: Any, tmp_path: Path) -> None:
    for count, everything in ((ROWS, True), (90, False)):
        stage = stage_of(write_rows(tmp_path / "rows.jsonl", rows()[:count]))
        reader = SampledCollator(Collator(processor, max_length=4_096), everything=everything)
        data = read_stage(stage, reader, 1)
        assert reader.note(1) is None and reader.encoded == count
        assert data.samples == read_stage(stage, Collator(processor, max_length=4_096), 1).samples


def test_rows_that_are_too_long_or_without_their_picture_are_found_among_all(
    processor: Any, tmp_path: Path, pictures: list[str]
) -> None:
    many = [image_row(f"i{at}", pictures[:1], "apa ini", "Label: Netral") for at in range(ROWS)]
    many += [text_row("long", "berita ini tidak benar " * 400, "Label: Netral")]
    many[777] = image_row("gone", [str(tmp_path / "gone.png")], "apa ini", "Label: Netral")
    stage = stage_of(write_rows(tmp_path / "rows.jsonl", many), max_length=300)
    refused: list[str] = []
    reader = SampledCollator(Collator(processor, max_length=300))
    read_stage(stage, reader, 1, refused)
    assert reader.encoded < ROWS / 2
    assert len(refused) == 2 and "gone" in refused[0] and refused[1].startswith("row long:")
