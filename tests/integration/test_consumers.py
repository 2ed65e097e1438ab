"""What others make of our rows: the datasets library, TRL, and the released chat templates it carries."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, load_rows
from dfkdata.common.errors import DataError
from dfkdata.rows.huggingface import to_dataset, write_parquet
from tests.helpers.golden import GOLDEN
from tests.helpers.pictures import KINDS
from tests.helpers.rows import caption, rows_of, write

datasets = pytest.importorskip("datasets")
IMAGES = GOLDEN / "formats" / "images"


def converted(tmp_path: Path, to: str = "messages") -> Path:
    """Rows of many kinds: mixed text and images, JSON-like texts, tools, and a key that comes late."""
    text = {"role": "user", "content": 'a text that says <image> and {"json": 1}'}
    rows: list[dict[str, Any]] = [
        {"messages": [text | {"content": f"question {n}"}, {"role": "assistant", "content": answer}]}
        for n, answer in enumerate(["1", "true", "null", '{"label": "fitnah"}', "[1, 2]", '"quoted"'])
    ]
    if to == "messages":
        rows.append({"messages": [text, {"role": "assistant", "content": "kept"}]})
    rows.append(
        {
            "messages": [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a line"}],
            "images": ["satu.png", "dua.jpg"],
        }
    )
    call = {"function": {"name": "get", "arguments": {"city": "Bogor", "days": 2, "note": None}}}
    rows.append(
        {
            "messages": [
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
            ],
            "tools": [
                {"name": "get", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
            ],
        }
    )
    rows.append(
        {
            "messages": [
                {"role": "user", "content": "late", "mood": {"new": ["key"]}},
                {"role": "assistant", "content": "yes"},
            ]
        }
    )
    source = write(tmp_path / "in.jsonl", rows)
    summary = convert(source, tmp_path / "out", format="messages", to=to, validation=0, images=IMAGES)
    assert summary.rows["out"] == len(rows)
    return tmp_path / "out" / "train.jsonl"


def test_rows_pass_through_datasets_unchanged(tmp_path: Path) -> None:
    path = converted(tmp_path)
    expected = [row | {"tools": row.get("tools", [])} for row in load_rows(path)]
    for found in (to_dataset(path, images=False), to_dataset(load_rows(path), images=False)):
        assert [dict(row) for row in found] == [
            {key: row[key] for key in found.column_names} for row in expected
        ]


def test_pictures_are_decoded_on_access(tmp_path: Path) -> None:
    (row,) = [row for row in to_dataset(converted(tmp_path)) if row["images"]]
    assert [image.size for image in row["images"]] == [(24, 16), (24, 16)]


def test_parquet_with_embedded_images_comes_back(tmp_path: Path) -> None:
    path = converted(tmp_path)
    assert write_parquet(path, tmp_path / "rows.parquet") == len(list(load_rows(path)))
    summary = convert(tmp_path / "rows.parquet", tmp_path / "again", format="messages", validation=0)
    assert summary.rows["out"] == len(list(load_rows(path)))
    before, after = rows_of(path.parent, "train"), rows_of(tmp_path / "again", "train")
    assert [row["messages"] for row in after] == [row["messages"] for row in before]
    assert [row.get("tools") for row in after] == [row.get("tools") for row in before]
    (row,) = [row for row in load_rows(tmp_path / "again" / "train.jsonl") if row["images"]]
    assert Path(row["images"][0]).read_bytes() == (IMAGES / "satu.png").read_bytes()


@pytest.mark.parametrize("number", [0.12345678901234, 2**70, -(2**70)])
def test_numbers_that_datasets_would_change_are_refused(number: Any) -> None:
    row = {"id": "1", "messages": [{"role": "user", "content": []}], "images": [], "meta": {"x": [number]}}
    with pytest.raises(DataError, match="datasets"):
        to_dataset([row])


def test_videos_and_audios_are_kept_as_paths_and_never_dropped(tmp_path: Path) -> None:
    for name in ("v.mp4", "a.wav"):
        (tmp_path / name).write_bytes(b"x")
    row = {
        "messages": [
            {"role": "user", "content": '<video>What? <audio> "images": "videos":'},
            {"role": "assistant", "content": "That."},
        ]
    } | {"videos": ["v.mp4"], "audios": ["a.wav"]}
    plain = {"messages": [{"role": "user", "content": 'Say "videos":'}, row["messages"][1]]}
    source = write(tmp_path / "in.jsonl", [plain, row])
    convert(source, tmp_path / "out", format="swift", validation=0)
    path = tmp_path / "out" / "train.jsonl"
    for found in (to_dataset(path), to_dataset(load_rows(path))):
        assert [row["videos"] for row in found] == [[], [str(tmp_path / "out" / ".." / "v.mp4")]]
        assert [row["audios"] for row in found] == [[], [str(tmp_path / "out" / ".." / "a.wav")]]
    with pytest.raises(DataError, match="only pictures are embedded"):
        to_dataset(path, embed=True)
    assert "videos" not in to_dataset([next(load_rows(path))]).column_names


@pytest.mark.parametrize("embed", [False, True])
def test_rows_that_hold_their_pictures_give_pictures(embed: bool, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    source = write(tmp_path / "in.jsonl", [caption(1, image="a.png")])
    convert(source, tmp_path / "out", format="captions", validation=0, materialize="embed")
    path = tmp_path / "out" / "train.jsonl"
    assert to_dataset(path, embed=embed)[0]["images"][0].size == (60, 40)
    assert to_dataset(path, images=False)[0]["images"][0].startswith("data:image/png;base64,")
    (row,) = load_rows(path)
    row["images"] = ["data:image/png;base64,A"]
    with pytest.raises(DataError, match="broken base64"):
        to_dataset([row])


def test_a_repaired_file_is_not_served_from_a_cache(tmp_path: Path) -> None:
    def first(n: int) -> str:
        convert(
            write(tmp_path / "in.jsonl", [caption(n)]),
            tmp_path / "out",
            format="captions",
            validation=0,
            overwrite=True,
        )
        return str(to_dataset(tmp_path / "out" / "train.jsonl", images=False)[0]["meta"]["text"])

    assert (first(1), first(2)) == ("A dog number 1.", "A dog number 2.")


def template(name: str) -> str:
    spec = find_spec("trl")
    if spec is None or spec.origin is None:
        pytest.skip("TRL is not installed")
    path = Path(spec.origin).parent / "chat_templates" / name
    if not path.exists():
        pytest.skip(f"this TRL carries no {name}")
    return path.read_text(encoding="utf-8")


def texts(row: dict[str, Any]) -> list[str]:
    return [
        part["text"].strip() for turn in row["messages"] for part in turn["content"] if part["type"] == "text"
    ]


@pytest.mark.parametrize(
    "name", ["qwen3_5_nothink.jinja", "qwen3_5_think.jinja", "qwen3_vl.jinja", "qwen2_5_vl.jinja"]
)
@pytest.mark.parametrize("through", ["file", "datasets"])
def test_a_released_template_renders_all_texts_and_as_many_pads_as_images(
    name: str, through: str, tmp_path: Path
) -> None:
    chat = pytest.importorskip("transformers.utils.chat_template_utils")
    source = template(name)
    path = converted(tmp_path)
    rows = list(load_rows(path)) if through == "file" else list(to_dataset(path, images=False))
    for row in rows:
        (rendered,), _ = chat.render_jinja_template(
            conversations=[row["messages"]], tools=row.get("tools") or None, chat_template=source
        )
        assert rendered.count("<|image_pad|>") == len(row["images"])
        for text in texts(row):
            assert text in rendered


def test_trl_places_the_images_of_our_rows(tmp_path: Path) -> None:
    prepare = pytest.importorskip("trl.data_utils").prepare_multimodal_messages
    for row in to_dataset(converted(tmp_path)):
        turns = prepare(json.loads(json.dumps(row["messages"])), images=row["images"])
        placed = [part["image"] for turn in turns for part in turn["content"] if part["type"] == "image"]
        assert placed == row["images"]
        assert texts({"messages": turns}) == texts(row)


def test_trl_takes_prompt_and_completion(tmp_path: Path) -> None:
    for row in rows_of(converted(tmp_path, "prompt_completion").parent, "train"):
        assert row["completion"][0]["role"] == "assistant"
        assert row["prompt"][-1]["role"] == "user"


def test_an_unreadable_picture_is_an_error_when_it_is_embedded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    source = write(tmp_path / "in.jsonl", [caption(1, image="a.png")])
    convert(source, tmp_path / "out", format="captions", validation=0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        to_dataset(tmp_path / "out" / "train.jsonl", embed=True)


# What the published conversion script for text-only rows writes, for the spellings that it reads.
FTV = [
    ({"instruction": " Do. ", "input": "", "output": "Done. "}, "Do.", "Done."),
    (
        {"instruction": "Translate.", "input": "I love you.", "output": "Je t'aime."},
        "Translate.\n\nInput:\nI love you.",
        "Je t'aime.",
    ),
    ({"prompt": "Hi", "response": "Hello"}, "Hi", "Hello"),
    ({"question": "2+2?", "context": "maths", "answer": "4"}, "2+2?\n\nInput:\nmaths", "4"),
    ({"text": "t", "completion": "c"}, "t", "c"),
    ({"query": "q", "source": "s", "reply": "r"}, "q\n\nInput:\ns", "r"),
    ({"instruction": "Classify.", "labels": ["a", "b"]}, "Classify.", "a"),
    ({"instruction": "", "prompt": "second", "target": "x"}, "second", "x"),
]


def test_alpaca_rows_become_what_the_published_script_writes(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [row for row, _, _ in FTV])
    convert(source, tmp_path / "out", format="alpaca", validation=0)
    for row, (_, user, answer) in zip(rows_of(tmp_path / "out", "train"), FTV, strict=True):
        assert row["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": user}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
