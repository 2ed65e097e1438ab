"""convert(): the row equation, the split, duplicates, the manifest and the finished folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfkdata import convert, load_rows
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion.splits import HashSplit
from tests.helpers.rows import caption, rows_of, write


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


GOOD = st.integers(0, 15).map(caption)
BAD = st.sampled_from(
    [
        '{"caption": ',
        "[]",
        "7",
        "\ufeff{}",
        {"caption": "x"},
        {"caption": 5, "gold": {}},
        {"caption": "x", "gold": {"mood": "sad"}},
        {"caption": "x", "gold": "{"},
        {"caption": "x", "gold": {}, "image": "../x.png"},
        {"id": "twice", "caption": "one", "gold": {}},
        {"id": "twice", "caption": "two", "gold": {}},
        {"caption": "a\u0301 \u200b", "gold": {}},
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(GOOD | BAD, max_size=40), validation=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 5))
def test_no_row_is_lost_whatever_is_broken(
    rows: list[Any], validation: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("case")
    out = folder / "out"
    source = write(folder / "in.jsonl", rows)
    summary = convert(
        source, out, format="captions", validation=validation, test=0.2, seed=seed, keep_empty=True
    )
    counts = summary.rows
    assert counts["in"] == len(rows)
    assert counts["in"] == counts["out"] + counts["quarantined"] + counts["duplicates"] + counts["left_out"]
    written = {part: rows_of(out, part) for part in ("train", "validation", "test")}
    assert sum(len(part) for part in written.values()) == counts["out"]
    assert len(rows_of(out, "quarantine")) == counts["quarantined"]
    assert len(rows_of(out, "duplicates")) == counts["duplicates"]
    ids = [row["id"] for part in written.values() for row in part]
    assert len(ids) == len(set(ids))
    groups = [{row["meta"]["group"] for row in part} for part in written.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(n) for n in range(30)] + ["broken"])
    for out in ("one", "two"):
        convert(source, tmp_path / out, format="captions")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_rows_keep_their_side_when_others_come_and_go(tmp_path: Path) -> None:
    rows = [caption(n) for n in range(200)]
    convert(write(tmp_path / "a.jsonl", rows), tmp_path / "a", format="captions", validation=0.3)
    convert(write(tmp_path / "b.jsonl", rows[150:20:-1]), tmp_path / "b", format="captions", validation=0.3)
    held = {row["id"] for row in rows_of(tmp_path / "a", "validation")}
    fewer = {row["id"] for part in ("train", "validation") for row in rows_of(tmp_path / "b", part)}
    assert {row["id"] for row in rows_of(tmp_path / "b", "validation")} == held & fewer
    assert 30 < len(held) < 90


def test_a_hash_split_gives_the_shares_that_were_asked_for() -> None:
    side = HashSplit(42, validation=0.1, test=0.2)
    found = [side(str(n)) for n in range(20_000)]
    assert abs(found.count("validation") / 20_000 - 0.1) < 0.01
    assert abs(found.count("test") / 20_000 - 0.2) < 0.01


def test_shares_that_leave_no_training_rows_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(1)])
    with pytest.raises(ConfigError, match="leave no training rows"):
        convert(source, tmp_path / "out", format="captions", validation=0.6, test=0.4)


def test_across_splits_the_training_copy_of_a_duplicate_goes(tmp_path: Path) -> None:
    rows = [caption(1, image_id=f"picture {n}") for n in range(40)]
    out = tmp_path / "out"
    summary = convert(write(tmp_path / "in.jsonl", rows), out, format="captions", validation=0.2)
    assert summary.rows["out"] == 1
    assert summary.rows["duplicates"] == 39
    assert (len(rows_of(out, "train")), len(rows_of(out, "validation"))) == (0, 1)
    assert not summary.too_many


def test_held_out_files_are_not_split_again_and_their_copies_leave_training(tmp_path: Path) -> None:
    train = write(tmp_path / "in.jsonl", [caption(n) for n in range(20)])
    held = write(tmp_path / "val.jsonl", [caption(n) for n in (3, 30, 31)])
    out = tmp_path / "out"
    summary = convert(train, out, format="captions", validation_file=held)
    assert summary.splits == {"train": 19, "validation": 3}
    assert summary.rows["duplicates"] == 1


def test_the_sources_own_split_is_kept_and_an_unknown_one_is_a_reject(tmp_path: Path) -> None:
    names = ["train", "dev", "TEST", "val", "other"]
    source = write(tmp_path / "in.jsonl", [caption(n, split=name) for n, name in enumerate(names)])
    summary = convert(source, tmp_path / "out", format="captions", split_column="split")
    assert summary.splits == {"train": 1, "validation": 2, "test": 1}
    assert summary.codes["SPLIT_UNKNOWN"]["count"] == 1


def test_group_by_keeps_rows_with_one_value_on_one_side(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(n, meta={"post": n % 7}) for n in range(70)])
    convert(source, tmp_path / "out", format="captions", group_by="meta.post", validation=0.4)
    for part in ("train", "validation"):
        rows = rows_of(tmp_path / "out", part)
        assert rows and len(rows) % 10 == 0


def test_the_same_conversion_again_is_nothing_to_do_and_another_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(n) for n in range(9)])
    out = tmp_path / "out"
    assert convert(source, out, format="captions").fresh
    before = files(out)
    assert not convert(source, out, format="captions").fresh
    with pytest.raises(ConfigError, match="config differ"):
        convert(source, out, format="captions", seed=1)
    write(source, [caption(n) for n in range(8)])
    with pytest.raises(ConfigError, match="inputs differ"):
        convert(source, out, format="captions")
    assert files(out) == before
    assert convert(source, out, format="captions", overwrite=True).rows["in"] == 8


def test_a_repaired_quarantine_file_can_be_fed_back(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(1), {"caption": "x", "gold": {"setting": "garden"}}])
    convert(source, tmp_path / "out", format="captions")
    text = (tmp_path / "out" / "quarantine.jsonl").read_text()
    repaired = tmp_path / "repaired.jsonl"
    repaired.write_text(text.replace("garden", "outdoor"))
    summary = convert(repaired, tmp_path / "again", format="captions", validation=0)
    assert summary.rows["out"] == 1
    assert rows_of(tmp_path / "again", "train")[0]["meta"]["gold"]["setting"] == "outdoor"


def test_a_run_that_dies_leaves_no_manifest_and_the_next_one_repairs_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "train.jsonl").write_text("half a ro")
    source = write(tmp_path / "in.jsonl", [caption(n) for n in range(5)])
    assert convert(source, out, format="captions").fresh
    assert not (out / ".partial").exists()


def test_limits_on_rejects_are_shares_or_counts(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [*[caption(n) for n in range(98)], "bad", "worse"])
    verdicts = {
        limit: convert(source, tmp_path / "out", format="captions", max_rejects=limit).too_many
        for limit in ("0%", "1.9%", "2%", "1", "2", 2)
    }
    assert verdicts == {"0%": True, "1.9%": True, "2%": False, "1": True, "2": False, 2: False}
    with pytest.raises(ConfigError, match="max-rejects"):
        convert(source, tmp_path / "out", format="captions", max_rejects="few")


def test_a_table_of_another_format_is_an_error_that_names_its_columns(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"it has the columns a, b"):
        convert(source, tmp_path / "out", format="dfk_csv")
    assert not (tmp_path / "out").exists()


def test_written_rows_load_with_absolute_images(tmp_path: Path) -> None:
    from tests.helpers.pictures import KINDS

    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/a.png").write_bytes(KINDS["png"])
    source = write(tmp_path / "data/in.jsonl", [caption(1, image="images/a.png")])
    convert(source, tmp_path / "deep" / "er" / "out", format="captions", validation=0)
    (row,) = load_rows(tmp_path / "deep/er/out/train.jsonl")
    assert Path(row["images"][0]).read_bytes() == KINDS["png"]
    (written,) = rows_of(tmp_path / "deep/er/out", "train")
    assert written["images"] == ["../../../data/images/a.png"]


def test_a_repaired_image_is_noticed_in_a_finished_folder(tmp_path: Path) -> None:
    from tests.helpers.pictures import KINDS

    image = tmp_path / "a.png"
    image.write_bytes(KINDS["png"][:100])
    source = write(tmp_path / "in.jsonl", [caption(1, image="a.png"), caption(2)])
    out = tmp_path / "out"
    assert convert(source, out, format="captions").rows["quarantined"] == 1
    assert not convert(source, out, format="captions").fresh
    image.write_bytes(KINDS["png"])
    with pytest.raises(ConfigError, match="images"):
        convert(source, out, format="captions")


def test_a_share_that_is_no_number_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [caption(1)])
    with pytest.raises(ConfigError, match="leave no training rows"):
        convert(source, tmp_path / "out", format="captions", validation=float("nan"))


def test_an_empty_training_file_is_a_warning(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [])
    summary = convert(source, tmp_path / "out", format="captions", validation=0)
    assert summary.warnings["SPLIT_EMPTY"]["first"]["reason"] == "no row fell into train"


def test_gold_of_another_schema_is_a_reject_and_no_training_row(tmp_path: Path) -> None:
    rows = [caption(1), {"caption": "A cat.", "gold": {"label": "netral", "analisis": "x"}}]
    summary = convert(write(tmp_path / "a.jsonl", rows), tmp_path / "out", format="captions", validation=0)
    assert summary.rows["out"] == 1
    assert "right --schema" in summary.codes["GOLD_INVALID"]["first"]["hint"]


def test_files_of_others_and_inputs_are_not_written_over(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [caption(1)])
    mine = write(tmp_path / "out" / "train.jsonl", [caption(2)])
    before = mine.read_bytes()
    with pytest.raises(ConfigError, match="not written by a conversion"):
        convert(source, tmp_path / "out", format="captions")
    with pytest.raises(ConfigError, match="is an input"):
        convert(mine, tmp_path / "out", format="captions", overwrite=True)
    assert mine.read_bytes() == before
    assert convert(source, tmp_path / "out", format="captions", overwrite=True).fresh


def test_a_configuration_that_is_no_text_or_empty_says_so(tmp_path: Path) -> None:
    from dfkdata.common.config import load_config
    from dfkdata.conversion.options import ConvertOptions

    for data, reason in ((b"\xff\xfe", "not UTF-8"), (b"", "is empty")):
        (tmp_path / "c.yaml").write_bytes(data)
        with pytest.raises(ConfigError, match=reason):
            load_config(tmp_path / "c.yaml", ConvertOptions)


def test_rows_with_more_cells_than_columns_and_rows_without_a_group_are_rejects(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("instruction,output,case\nApa?,Itu.,a\nSiapa?,Dia.,b,c\nKapan?,Besok.,\n")
    summary = convert(source, tmp_path / "out", format="alpaca", group_by="case", max_rejects="100%")
    assert {code: found["first"]["source"] for code, found in summary.codes.items()} == {
        "CSV_LONG": "in.csv:3",
        "GROUP_MISSING": "in.csv:4",
    }
    assert summary.rows["out"] == 1


def test_a_video_that_comes_later_is_looked_for_again(tmp_path: Path) -> None:
    """A rule about files beside the rows is not settled by the rows alone."""
    turns = [{"role": "user", "content": "<video>Apa?"}, {"role": "assistant", "content": "Itu."}]
    source = write(tmp_path / "in.jsonl", [{"messages": turns, "videos": ["a.mp4"]}])
    first = convert(source, tmp_path / "out", format="messages", validation=0, keep_empty=True)
    assert first.codes.keys() == {"MEDIA_MISSING"}
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(ConfigError, match="rows and outputs differ"):
        convert(source, tmp_path / "out", format="messages", validation=0, keep_empty=True)


def test_the_keywords_of_convert_are_the_fields_of_its_options() -> None:
    import inspect

    from dfkdata.conversion.options import ConvertOptions

    parameters = inspect.signature(convert).parameters
    fields = {field.alias or name: field for name, field in ConvertOptions.model_fields.items()}
    assert [*parameters] == ["input", "out", *fields]
    for name, field in fields.items():
        assert field.description, name
        if not field.is_required():
            assert parameters[name].default == field.default, name


def test_a_keyword_that_is_none_of_its_options_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vlidation: unknown key; did you mean 'validation'"):
        convert([], tmp_path / "out", format="alpaca", vlidation=0.1)  # type: ignore[call-arg]
