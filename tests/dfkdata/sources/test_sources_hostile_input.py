"""Input that nobody writes on purpose: a bad row is set aside alone, a bad file is one clear error."""

from __future__ import annotations

import base64
import datetime
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dfkdata import convert, load_rows
from dfkdata.common import plugins
from dfkdata.common.errors import DataError
from dfkdata.conversion.options import Summary
from dfkdata.sources._duplicate_keys import DuplicateKeyHook
from tests.helpers.pictures import KINDS

GOOD = '{"instruction": "q", "output": "a"}'
OTHER = '{"instruction": "z", "output": "y"}'
CAPTION = '{"caption": "a cat", "gold": {"subjects": [], "actions": [], "setting": "indoor"}}'
PAIR = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def converted(
    data: str | list[Any], tmp_path: Path, *, name: str = "a.json", format: str = "alpaca"
) -> Summary:
    source: Any = data
    if isinstance(data, str):
        source = write(tmp_path / name, data)
    done = convert(source, tmp_path / "out", format=format, validation=0)
    rows = done.rows
    assert rows["in"] == rows["out"] + rows["quarantined"] + rows["duplicates"] + rows["left_out"]
    return done


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def codes(done: Summary) -> dict[str, int]:
    return {code: entry["count"] for code, entry in done.codes.items()}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "9" * 6000])
def test_a_number_that_json_does_not_know_costs_one_row_of_a_list(number: str, tmp_path: Path) -> None:
    bad = GOOD.replace("}", f', "x": {number}' + "}")
    done = converted(f"[{GOOD},\n{bad},\n{OTHER}]", tmp_path)
    assert (done.rows["out"], codes(done)) == (2, {"BAD_JSON": 1})
    raw = json.loads((tmp_path / "out/quarantine.jsonl").read_text())
    assert (raw["raw"], raw["source"]) == (bad, "a.json:2")


@pytest.mark.parametrize("between", [", ", ",\n"])
@pytest.mark.parametrize("bad", ["NaN", '"\\ud800"', "1e400"])
def test_what_json_does_not_know_costs_one_row_of_a_small_wrapped_list(
    bad: str, between: str, tmp_path: Path
) -> None:
    rows = [GOOD, GOOD.replace("}", f', "x": {bad}' + "}"), OTHER]
    done = converted(f'{{"version": 1, "data": [{between.join(rows)}]}}', tmp_path)
    assert done.rows["out"] == 2
    assert codes(done) == {"BAD_ENCODING" if "ud800" in bad else "BAD_JSON": 1}


@pytest.mark.parametrize("text", ['{"data": [%s], "x": }', '{"data": [%s, {"a"', '{"x": NaN, "y": %s}'])
def test_a_small_object_that_is_no_json_outside_of_its_rows_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: not JSON"):
        converted(text % GOOD, tmp_path)


def test_json_lines_whose_first_is_cut_off_in_a_list_are_lines(tmp_path: Path) -> None:
    done = converted('{"data": [1, \n' + GOOD + "\n" + OTHER + "\n", tmp_path)
    assert (done.rows["out"], codes(done)) == (2, {"BAD_JSON": 1})


@pytest.mark.parametrize("rest", ["garbage", GOOD, f"\n[{OTHER}]", " " * (1 << 20) + "x"])
def test_what_follows_a_json_list_is_an_error_and_not_passed_over(rest: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="follows the end"):
        converted(f"[{GOOD}]{rest}", tmp_path)


def test_blanks_may_follow_a_json_list(tmp_path: Path) -> None:
    assert converted(f"[{GOOD}]" + " \n" * (1 << 20), tmp_path).rows["out"] == 1


def test_a_line_nested_too_deeply_is_one_reject(tmp_path: Path) -> None:
    deep = GOOD.replace("}", f', "x": {"[" * 5000}{"]" * 5000}' + "}")
    done = converted(f"{GOOD}\n{deep}\n{OTHER}\n", tmp_path, name="a.jsonl")
    assert (done.rows["out"], codes(done)) == (2, {"BAD_JSON": 1})
    with pytest.raises(DataError, match="too deeply"):
        convert(write(tmp_path / "a.json", f"[{deep}]"), tmp_path / "other", format="alpaca")


@pytest.mark.parametrize("where", ["caption", "image", "gold"])
def test_half_a_surrogate_pair_where_a_format_names_rows_is_one_reject(where: str, tmp_path: Path) -> None:
    bad = CAPTION.replace('"a cat"', '"\\ud800"') if where == "caption" else CAPTION
    if where == "image":
        bad = bad.replace("}}", '}, "image": "\\ud800.png"}')
    elif where == "gold":
        bad = bad.replace('"subjects": []', '"subjects": [{"name": "\\ud800", "attributes": []}]')
    done = converted(f"[{bad}, {CAPTION}]", tmp_path, format="captions")
    assert (done.rows["out"], codes(done)) == (1, {"BAD_ENCODING": 1})


def test_half_a_surrogate_pair_in_a_column_that_splits_or_groups_is_one_reject(tmp_path: Path) -> None:
    rows = [json.loads(GOOD) | {"k": "\ud800"}, json.loads(GOOD) | {"k": "train"}]
    for at, how in enumerate(({"split_column": "k"}, {"group_by": "k"}, {"stratify": "k"})):
        done = convert(rows, tmp_path / str(at), format="alpaca", **how)  # type: ignore[arg-type]  # one of three
        assert (done.rows["out"], codes(done)) == (1, {"BAD_ENCODING": 1})


@pytest.mark.parametrize(
    ("format", "turns", "code"),
    [
        ("messages", [{"role": "user", "content": [{"type": ["x"]}]}], "PART_UNKNOWN"),
        ("messages", [PAIR[0], {"role": "assistant", "content": "a", "tool_calls": 3}], "TOOL_UNKNOWN"),
        ("messages", [PAIR[0], {"role": "assistant", "tool_calls": {"a": 1}}], "TOOL_UNKNOWN"),
        ("sharegpt", [{"from": ["x"], "value": "q"}], "ROLE_UNKNOWN"),
        (
            "swift",
            [*PAIR[:1], {**PAIR[1], "tool_calls": 3}, {"role": "tool_call", "content": "{}"}],
            "TOOL_UNKNOWN",
        ),
    ],
)
def test_a_turn_of_odd_types_is_one_reject(format: str, turns: list[Any], code: str, tmp_path: Path) -> None:
    key = "conversations" if format == "sharegpt" else "messages"
    done = converted(json.dumps({key: turns}) + "\n", tmp_path, name="a.jsonl", format=format)
    assert codes(done) == {code: 1}


def test_values_in_memory_that_json_has_no_word_for_are_kept_as_text(tmp_path: Path) -> None:
    day = datetime.date(2024, 5, 1)
    copy = {"messages": PAIR, "day": day, "set": {1}, "map": {(1, 2): 3}}
    done = converted([{"messages": PAIR}, copy, {"messages": [], "day": day}], tmp_path, format="messages")
    assert (done.rows["out"], done.rows["duplicates"], codes(done)) == (1, 1, {"NO_TURNS": 1})
    kept = json.loads((tmp_path / "out/duplicates.jsonl").read_text())["raw"]
    assert (kept["day"], kept["set"], kept["map"]) == ("2024-05-01", "{1}", {"(1, 2)": 3})


def test_a_parquet_file_with_times_and_copies_is_converted(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    times = pyarrow.array([1, 2], pyarrow.timestamp("ns"))
    table = pyarrow.table({"instruction": ["q", "q"], "output": ["a", "a"], "at": times})
    parquet.write_table(table, tmp_path / "a.parquet")
    done = convert(tmp_path / "a.parquet", tmp_path / "out", format="alpaca", validation=0)
    assert (done.rows["out"], done.rows["duplicates"]) == (1, 1)


def test_a_parquet_file_whose_text_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    buffers = [None, pyarrow.py_buffer(struct.pack("<2i", 0, 1)), pyarrow.py_buffer(b"\xff")]
    bad = pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers)
    parquet.write_table(pyarrow.table({"instruction": bad, "output": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="not a whole Parquet file"):
        convert(tmp_path / "a.parquet", tmp_path / "out", format="alpaca")


def test_a_broken_zst_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(b"hello")
    with pytest.raises(DataError, match="broken"):
        convert(tmp_path / "a.jsonl.zst", tmp_path / "out", format="alpaca")


@pytest.mark.parametrize("names", [["."], ["a", "a/b"], ["x" * 300]])
def test_a_zip_with_names_that_are_no_files_is_an_error(names: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ZIP", "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    with pytest.raises(DataError):
        convert(tmp_path / "a.ZIP", tmp_path / "out", format="alpaca")


def test_a_locked_zip_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jsonl", GOOD)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="unpack it yourself"):
        convert(tmp_path / "a.zip", tmp_path / "out", format="alpaca")


def test_endings_in_capitals_are_the_same_endings(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "A.JSONL.GZ").write_bytes(gzip.compress(GOOD.encode()))
    assert convert(tmp_path, tmp_path / "out", format="alpaca", validation=0).rows["out"] == 1


def test_push_to_hub_uploads_pictures_as_bytes_and_hands_the_token_to_the_client_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from PIL import Image

    from dfkdata.rows.huggingface import push_to_hub

    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    row = {"id": "1", "messages": PAIR, "images": [str(tmp_path / "a.png")], "meta": {}}
    seen: dict[str, Any] = {}

    def client(found: datasets.Dataset, repo: str, **how: Any) -> None:
        raw = found.cast_column("images", datasets.List(datasets.Image(decode=False)))
        seen.update(how, repo=repo, images=raw[0]["images"], messages=raw[0]["messages"])

    monkeypatch.setattr(datasets.Dataset, "push_to_hub", client)
    assert push_to_hub([row], "ORG/NAME", split="test", token="secret") == "hf://datasets/ORG/NAME"
    assert seen["images"] == [{"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}]
    assert (seen["repo"], seen["split"], seen["private"]) == ("ORG/NAME", "test", True)
    assert (seen["token"], seen["messages"]) == ("secret", PAIR)


KEYS = (
    "messages", "conversations", "role", "from", "content", "value", "type", "text", "image", "images",
    "image_url", "videos", "tools", "tool_calls", "function", "name", "arguments", "parameters", "meta",
    "group", "gold", "id", "instruction", "input", "output", "history", "system", "caption", "question",
    "answer", "label", "analisis", "img", "img_path", "frame_path", "ringkasan", "_label", "link",
)  # fmt: skip
LEAF = st.sampled_from(
    [None, True, 0, 1.5, "", "q", "user", "assistant", "image", "<image>", "[1]", "{}", "\ud800"]
)
TREE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
)


@pytest.mark.parametrize("format", plugins.names("dfkdata.formats"))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.sampled_from(KEYS), TREE, max_size=6) | TREE, max_size=6))
def test_no_row_of_any_shape_is_lost_or_stops_a_conversion(
    format: str, rows: list[Any], tmp_path: Path
) -> None:
    found = convert(rows, tmp_path / "out", format=format, to="openai", overwrite=True).rows
    assert found["in"] == len(rows)
    assert found["in"] == found["out"] + found["quarantined"] + found["duplicates"] + found["left_out"]


PICTURED: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "What is it?", "output": "A line.", "image": None},
    "vqa": {"question": "What is it?", "answer": "A line.", "image": None},
    "captions": {"caption": "A dog.", "gold": {"subjects": [{"name": "dog"}]}, "image": None},
    "messages": {"messages": PAIR, "image": None},
    "swift": {"messages": [{"role": "user", "content": "<image>q"}, PAIR[1]], "image": None},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "A."}],
        "image": None,
    },
}


@pytest.mark.parametrize("format", PICTURED)
@pytest.mark.parametrize("form", ["pillow", "bytes and path", "data URI"])
def test_a_picture_in_the_row_is_kept_in_every_format_that_lists_pictures(
    format: str, form: str, tmp_path: Path
) -> None:
    data = KINDS["png"]
    picture = {
        "pillow": Image.open(io.BytesIO(data)),
        "bytes and path": {"bytes": data, "path": None},
        "data URI": "data:image/png;base64," + base64.b64encode(data).decode(),
    }[form]
    convert([PICTURED[format] | {"image": picture}], tmp_path / "out", format=format, validation=0)
    (row,) = load_rows(tmp_path / "out" / "train.jsonl")
    (path,) = row["images"]
    assert Image.open(path).tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_a_header_of_100_000_columns_is_read_in_linear_work(tmp_path: Path) -> None:
    names = ["caption", *(f"c{number}" for number in range(100_000)), "caption"]
    (path := tmp_path / "wide.csv").write_text(",".join(names) + "\n")  # hours if each name met each other
    with pytest.raises(DataError, match="the column 'caption' stands twice"):
        convert(path, tmp_path / "out", format="dfk_csv", to="messages")


def test_an_object_of_100_000_keys_is_searched_in_linear_work() -> None:
    pairs = [(f"k{number}", number) for number in range(100_000)]
    hook = DuplicateKeyHook()
    assert len(hook([*pairs, pairs[-1]])) == 100_000
    assert hook.take() == "k99999"
