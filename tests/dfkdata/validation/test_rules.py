"""The rules: each fires on its row, can be set, and counts what it does."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dfkdata import convert
from dfkdata.common.errors import ConfigError
from dfkdata.rows.record import RowError
from dfkdata.validation import conversation
from dfkdata.validation.rules import RULES, Policy, RuleReporter
from tests.helpers.pictures import KINDS, picture, undecodable
from tests.helpers.rows import caption, rows_of, write


def turns(*pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in pairs], **more}


def call(arguments: Any, parameters: Any) -> dict[str, Any]:
    asked = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
    }
    return {
        "messages": [{"role": "user", "content": "q"}, asked],
        "tools": [{"name": "f", "parameters": parameters}],
    }


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ROLE_ORDER", turns(("assistant", "a"))),
    ("ROLE_ORDER", turns(("user", "a"), ("user", "b"), ("assistant", "c"))),
    ("ROLE_ORDER", turns(("user", "a"), ("tool", "b"), ("assistant", "c"))),
    ("SYSTEM_NOT_FIRST", turns(("user", "a"), ("system", "b"), ("user", "c"), ("assistant", "d"))),
    ("EMPTY_USER", turns(("user", " \n"), ("assistant", "a"))),
    ("EMPTY_ANSWER", turns(("user", "a"), ("assistant", " "))),
    ("NO_ANSWER", turns(("user", "a"))),
    ("CONTROL_TOKEN", turns(("user", "What is <|image_pad|>?"), ("assistant", "a"))),
    ("CONTROL_TOKEN", turns(("user", "é <b> a"), ("assistant", "b<|im_end|>\n<|im_start|>user"))),
    ("ANSWER_COPIES_PROMPT", turns(("user", "the same"), ("assistant", "the same"))),
    (
        "IMG_COUNT",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}]},
                {"role": "assistant", "content": "a"},
            ]
        },
    ),
    ("TOOL_ARGS_INVALID", call({"n": "1"}, NUMBER)),
    ("TOOL_ARGS_INVALID", call({}, NUMBER)),
]


@pytest.mark.parametrize(("code", "row"), CASES)
def test_a_rule_quarantines_warns_or_is_off_as_it_is_set(
    code: str, row: dict[str, Any], tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [row])
    strict = convert(source, tmp_path / "a", format="messages", validation=0)
    assert (strict.rows["quarantined"], list(strict.codes)) == (1, [code])
    warned = convert(source, tmp_path / "b", format="messages", validation=0, rules={code: "warn"})
    if warned.rows["out"]:
        assert warned.warnings[code]["count"] >= 1
    silent = convert(source, tmp_path / "c", format="messages", validation=0, rules={code: "off"})
    assert code not in silent.warnings and code not in silent.codes


SAID, SHOWN = "Write <image> here.", [{"type": "image"}, {"type": "text", "text": "Seen."}]


def talk(said: str, **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": said}], **more}


SHOWN_BY_SYSTEM = {
    "messages": [
        {"role": "system", "content": SHOWN},
        *turns(("user", "How?"), ("assistant", "So."))["messages"],
    ],
    "images": ["a.png"],
}
SHOWN_IN_ANSWER = {
    "messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": SHOWN}],
    "images": ["a.png"],
}
POSITIONS: list[tuple[str, str, dict[str, Any], int]] = [
    ("swift", "messages", turns(("user", "How?"), ("assistant", SAID)), 1),
    ("swift", "swift", turns(("user", "How?"), ("assistant", SAID)), 0),
    ("swift", "messages", turns(("system", SAID), ("user", "How?"), ("assistant", "So.")), 1),
    ("sharegpt", "messages", talk(SAID), 1),
    ("sharegpt", "messages", talk("So.", system=SAID), 1),
    ("messages", "messages", SHOWN_IN_ANSWER, 1),
    ("messages", "openai", SHOWN_IN_ANSWER, 0),
    ("messages", "messages", SHOWN_BY_SYSTEM, 1),
]


@pytest.mark.parametrize(("format", "export", "row", "out"), POSITIONS)
def test_a_media_tag_outside_a_user_turn_goes_by_its_rule_in_every_format(
    format: str, export: str, row: dict[str, Any], out: int, tmp_path: Path
) -> None:
    """out: rows written once the rule lets it pass; a layout whose own tag it is still refuses it."""
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    source = write(tmp_path / "in.jsonl", [row])
    policies: tuple[Policy, ...] = ("quarantine", "warn", "off")
    for policy in policies:
        done = convert(
            source,
            tmp_path / policy,
            format=format,
            to=export,
            validation=0,
            rules={"IMG_POSITION": policy},
        )
        if policy == "quarantine":
            assert list(done.codes) == ["IMG_POSITION"]
            continue
        assert done.rows["out"] == out
        counted = (
            policy == "warn" and out == 1
        )  # a row that the layout cannot hold is a reject and nothing else
        assert done.warnings.get("IMG_POSITION", {}).get("count", 0) == counted
        if out and SAID in str(row):
            assert SAID in str(rows_of(tmp_path / policy, "train")[0]["messages"])


@pytest.mark.parametrize("format", ["messages", "openai", "alpaca", "vqa"])
def test_a_media_tag_in_an_answer_is_text_where_tags_mean_nothing(format: str, tmp_path: Path) -> None:
    rows = {
        "alpaca": {"instruction": "How?", "output": SAID},
        "vqa": {"question": "How?", "answer": SAID, "image": "a.png"},
    }
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    source = write(tmp_path / "in.jsonl", [rows.get(format, turns(("user", "How?"), ("assistant", SAID)))])
    done = convert(source, tmp_path / "out", format=format, validation=0)
    assert (done.rows["out"], done.warnings) == (1, {})
    answer = rows_of(tmp_path / "out", "train")[0]["messages"][-1]
    assert answer["content"] == [{"type": "text", "text": SAID}]


@pytest.mark.parametrize("to", ["messages", "openai"])
@pytest.mark.parametrize("place", ["id", "tool_call_id"])
def test_an_id_of_a_call_that_is_no_text_is_a_reject(place: str, to: str, tmp_path: Path) -> None:
    ids: dict[str, Any] = {"id": "c", "tool_call_id": "c", place: {"a": 1}}
    function = {"name": "look", "arguments": {}}
    row = {
        "messages": [
            {"role": "user", "content": "What is there?"},
            {
                "role": "assistant",
                "tool_calls": [{"type": "function", "id": ids["id"], "function": function}],
            },
            {"role": "tool", "content": "A square.", "tool_call_id": ids["tool_call_id"]},
            {"role": "assistant", "content": "A square."},
        ],
        "tools": [{"type": "function", "function": {"name": "look"}}],
    }
    source = write(tmp_path / "in.jsonl", [row])
    done = convert(source, tmp_path / "out", format="messages", to=to, validation=0)
    assert (done.rows["quarantined"], list(done.codes)) == (1, ["NOT_TEXT"])


def test_an_image_in_a_tool_turn_counts_as_a_placeholder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    tools = [{"type": "function", "function": {"name": "look"}}]
    called = [{"type": "function", "function": {"name": "look", "arguments": {}}}]
    row = {
        "messages": [
            {"role": "user", "content": "What is there?"},
            {"role": "assistant", "content": "", "tool_calls": called},
            {"role": "tool", "content": [{"type": "image"}]},
            {"role": "assistant", "content": "A square."},
        ],
        "tools": tools,
        "images": ["a.png"],
    }
    source = write(tmp_path / "in.jsonl", [row])
    done = convert(source, tmp_path / "out", format="messages", validation=0)
    assert (done.rows["out"], done.codes) == (1, {})


@pytest.mark.parametrize(("tag", "code"), [("image", "IMG_COUNT"), ("video", "MEDIA_COUNT")])
def test_a_placeholder_without_any_file_is_found_and_never_ends_a_conversion(
    tag: str, code: str, tmp_path: Path
) -> None:
    rows = [turns(("user", f"<{tag}>What?"), ("assistant", f"It {n}.")) for n in range(2)]
    source = write(tmp_path / "in.jsonl", [*rows, turns(("user", "Who?"), ("assistant", "I."))])
    done = convert(source, tmp_path / "a", format="swift", validation=0)
    assert (done.rows["out"], done.codes[code]["count"]) == (1, 2)
    done = convert(source, tmp_path / "b", format="swift", to="openai", validation=0, rules={code: "off"})
    assert (done.rows["out"], done.codes["LAYOUT_CANNOT"]["count"]) == (1, 2)


def test_a_missing_answer_that_a_format_finds_goes_by_its_rule_and_is_told_once(tmp_path: Path) -> None:
    rows = [{"instruction": "Say it.", "output": " "}, {"instruction": "Say that.", "output": "That."}]
    source = write(tmp_path / "in.jsonl", rows)
    strict = convert(source, tmp_path / "a", format="alpaca", validation=0)
    assert strict.codes["EMPTY_ANSWER"]["first"]["path"] == "output"
    warned = convert(source, tmp_path / "b", format="alpaca", validation=0, rules={"EMPTY_ANSWER": "warn"})
    assert (warned.rows["out"], warned.warnings["EMPTY_ANSWER"]["count"]) == (2, 1)
    silent = convert(source, tmp_path / "c", format="alpaca", validation=0, rules={"EMPTY_ANSWER": "off"})
    assert (silent.rows["out"], silent.warnings) == (2, {})


def test_a_post_without_analysis_is_no_training_row_whatever_the_rule_says(tmp_path: Path) -> None:
    row = {
        "ringkasan": "r",
        "klaim": "k",
        "fakta": "f",
        "label": "fitnah",
        "analisis": "",
        "frame_path": "a.png",
    }
    source = write(tmp_path / "in.jsonl", [row])
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    for policy, code in (("quarantine", "EMPTY_ANSWER"), ("warn", "GOLD_INVALID"), ("off", "GOLD_INVALID")):
        rules: dict[str, Any] = {"EMPTY_ANSWER": policy}
        done = convert(source, tmp_path / policy, format="dfk_frames", validation=0, rules=rules)
        assert list(done.codes) == [code]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [({"type": "nonsense"}, "TOOLS_INVALID"), ({"$ref": "http://127.0.0.1:9/x.json"}, "TOOLS_INVALID")],
)
def test_a_tool_without_a_usable_schema_is_a_reject_and_nothing_is_fetched(
    parameters: Any, code: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [call({}, parameters)])
    assert list(convert(source, tmp_path / "out", format="messages").codes) == [code]


def test_rules_that_cannot_be_set_that_way_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(1)])
    for rules, message in (
        ({"BAD_JSN": "off"}, "did you mean 'BAD_JSON'"),
        ({"BAD_JSON": "off"}, "cannot be 'off'"),
        ({"EMPTY_USER": "fix"}, "it can be quarantine, warn, off"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert(source, tmp_path / "out", format="captions", rules=rules)  # type: ignore[arg-type]  # wrong on purpose


def test_text_is_normalised_and_invisible_characters_are_shown_or_removed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [turns(("user", "caf\u0065\u0301 \u200bx"), ("assistant", "ok"))])
    first = convert(source, tmp_path / "a", format="messages", validation=0)
    assert {code: found["count"] for code, found in first.warnings.items()} == {
        "TEXT_NFC": 1,
        "ZERO_WIDTH": 1,
    }
    text = rows_of(tmp_path / "a", "train")[0]["messages"][0]["content"][0]["text"]
    assert text == "caf\u00e9 \u200bx"
    convert(
        source,
        tmp_path / "b",
        format="messages",
        validation=0,
        rules={"ZERO_WIDTH": "fix", "TEXT_NFC": "off"},
    )
    text = rows_of(tmp_path / "b", "train")[0]["messages"][0]["content"][0]["text"]
    assert text == "cafe\u0301 x"


def test_one_post_with_two_labels_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    (tmp_path / "b.png").write_bytes(KINDS["gif"])
    rows = ["title,link,text,img_path,label,analisis"]
    rows += [
        f"t,l,x,{name}.png,{label},Analisis {n}"
        for n, (name, label) in enumerate(
            [("a", "fitnah"), ("a", "netral"), ("b", "fitnah"), ("b", "Fitnah")]
        )
    ]
    (tmp_path / "in.csv").write_text("\n".join(rows) + "\n")
    summary = convert(tmp_path / "in.csv", tmp_path / "out", format="dfk_csv", validation=0)
    assert summary.warnings["TWO_LABELS"]["count"] == 4  # all are of one link
    assert summary.warnings["TWO_LABELS"]["first"]["source"] == "in.csv:2"


def test_a_row_of_too_many_tokens_is_a_reject(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    source = write(tmp_path / "in.jsonl", [turns(("user", "a b c"), ("assistant", "d " * n)) for n in (2, 3)])
    how: dict[str, Any] = {"tokenizer": str(tmp_path / "tokenizer.json"), "max_tokens": 5}
    summary = convert(source, tmp_path / "out", format="messages", validation=0, **how)
    assert summary.codes["TOO_LONG"]["first"]["reason"] == "6 text tokens, the limit is 5"
    with pytest.raises(ConfigError, match="belong together"):
        convert(source, tmp_path / "other", format="messages", max_tokens=5)


def test_deep_decodes_every_picture_and_finds_near_ones_across_splits(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = Image.radial_gradient("L").resize((200, 200))
    for name, quality in (("a", 95), ("b", 60)):
        buffer = io.BytesIO()
        good.convert("RGB").save(buffer, "JPEG", quality=quality)
        (folder / f"{name}.jpg").write_bytes(buffer.getvalue())
    (folder / "c.png").write_bytes(undecodable(picture("PNG", (80, 80))))
    words = " ".join(f"word{n}" for n in range(40))
    rows = [
        caption(n, image=name, split=side) | {"caption": words + more}
        for n, (name, side, more) in enumerate(
            [("a.jpg", "train", " one"), ("b.jpg", "test", " two"), ("c.png", "train", "")]
        )
    ]
    source = write(folder / "in.jsonl", rows)
    plain = convert(source, tmp_path / "plain", format="captions", split_column="split")
    assert plain.rows["out"] == 3, "headers, end markers and check sums are whole"
    deep = convert(source, tmp_path / "deep", format="captions", split_column="split", deep=True)
    assert deep.codes["IMG_UNREADABLE"]["first"]["source"] == "in.jsonl:3"
    assert {"IMG_NEAR_DUPLICATE", "TEXT_NEAR_DUPLICATE"} <= deep.warnings.keys()
    manifest = json.loads((tmp_path / "deep" / "manifest.json").read_text())
    assert manifest["overlap"] == {"groups": 0, "pictures": 1, "prompts": 1}


@pytest.mark.parametrize("way", ["copy", "embed"])
def test_materialised_images_travel_with_the_rows(way: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(KINDS["png"])
    source = write(tmp_path / "in" / "in.jsonl", [caption(1, image="a.png")])
    convert(source, tmp_path / "out", format="captions", validation=0, materialize=way)
    (tmp_path / "in" / "a.png").unlink()
    again = convert(tmp_path / "out" / "train.jsonl", tmp_path / "again", format="messages", validation=0)
    assert again.rows["out"] == 1
    (row,) = rows_of(tmp_path / "again", "train")
    assert (tmp_path / "again" / row["images"][0]).resolve().read_bytes() == KINDS["png"]


def test_a_rare_class_and_a_small_training_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    rows = [f"t{n},l{n},x,a.png,{'fitnah' if n else 'netral'},Analisis {n}" for n in range(30)]
    (tmp_path / "in.csv").write_text("title,link,text,img_path,label,analisis\n" + "\n".join(rows) + "\n")
    summary = convert(tmp_path / "in.csv", tmp_path / "out", format="dfk_csv", to="swift", validation=0)
    assert {"CLASS_RARE", "SIZE_RECOMMENDED"} <= summary.warnings.keys()


PART = st.sampled_from(
    [{"type": "text", "text": text} for text in ("a", "b", " ", "")] + [{"type": "image"}, {"type": "video"}]
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": st.lists(PART, max_size=2)},
    optional={"tool_calls": st.just([{"function": {"name": "f", "arguments": {}}}])},
)


@given(st.lists(TURN, max_size=3), st.sampled_from([[], ["a.png"]]))
def test_the_shortcut_for_plain_rows_agrees_with_the_walk(messages: list[Any], images: list[str]) -> None:
    row = {"messages": messages, "images": images}
    heard: list[str] = []
    rules = RuleReporter(dict.fromkeys(RULES, "warn"), lambda reject: heard.append(reject.code))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversation, "is_plain", lambda row: False)
        try:
            conversation.check_conversation(row, rules.for_row("x"))
        except RowError as fault:
            heard.append(fault.code)
    assert not (conversation.is_plain(row) and heard)


def _codes(source: str) -> Iterator[str]:
    """Codes of the rejects that a source makes: `RowError("CODE", ...)`, `Reject(..., code="CODE")`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        given = [word.value for word in node.keywords if word.arg == "code"]
        if name == "RowError" or name == "Reject":
            given += node.args[:1] if name == "RowError" else []
            for value in given:
                yield from (
                    leaf.value
                    for leaf in ast.walk(value)
                    if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and leaf.value.isupper()
                )


def test_every_code_that_a_reject_carries_is_a_rule() -> None:
    import dfkdata
    import dfkeval
    import dfktrain

    codes = {
        code: path.name
        for package in (dfkdata, dfkeval, dfktrain)
        for path in Path(package.__file__).parent.rglob("*.py")
        for code in _codes(path.read_text(encoding="utf-8"))
    }
    assert codes.keys() >= {"BAD_JSON", "NO_INPUT", "IMG_MISSING"}
    assert codes.keys() <= RULES.keys(), {code: name for code, name in codes.items() if code not in RULES}


def test_a_broken_rule_is_reported_with_its_own_source() -> None:
    """Two rows may be reported in turns: nothing remembers which one was looked at last."""
    warnings: list[tuple[str, str]] = []
    rules = RuleReporter({"ZERO_WIDTH": "warn"}, lambda reject: warnings.append((reject.source, reject.code)))
    first, second = rules.for_row("a:1"), rules.for_row("a:2", (RowError("TEXT_NFC", "told by the format"),))
    for report in (second, first):
        report(RowError("TEXT_NFC", "x"))
        report(RowError("ZERO_WIDTH", "x"))
    assert not warnings, "a row may still be rejected"
    second.settle(0)
    first.settle(1)
    assert warnings == [
        ("a:2", "TEXT_NFC"),
        ("a:2", "ZERO_WIDTH"),
        ("a:1", "TEXT_NFC"),
        ("a:1", "ZERO_WIDTH"),
    ]


def test_a_reject_holds_what_repairing_needs(tmp_path: Path) -> None:
    row = caption(1) | {"gold": {"subjects": [{"name": ""}]}}
    convert(write(tmp_path / "in.jsonl", [row]), tmp_path / "out", format="captions", keep_empty=True)
    (reject,) = rows_of(tmp_path / "out", "quarantine")
    assert reject["source"] == "in.jsonl:1"
    assert reject["code"] == "TOOL_ARGS_INVALID"
    assert reject["path"] == "gold.subjects.0.name"
    assert reject["raw"] == json.loads(json.dumps(row))
    assert reject["hint"]


def test_a_process_that_decodes_and_dies_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    rows = '[{"question": "q", "answer": "a", "image": "a.png"}]'
    script = "from dfkdata import convert\n"  # without a guard, each process would convert again
    script += f"convert({rows}, 'out', format='vqa', images='.', validation=0, deep=True)\n"
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert "ConfigError: deep:" in done.stderr and "__main__" in done.stderr


OWN_RULE = """
from dfkdata.rows.record import RowError
from dfkdata.validation.rules import Rule
RULE = Rule("an answer is short", default="warn", policies=("quarantine", "warn", "off"))
def check(row):
    text = row["messages"][-1]["content"][0]["text"]
    if len(text) > 5:
        raise RowError(__name__, "the answer is long", path="messages[-1]", value=text)
"""


@pytest.mark.parametrize(
    ("policy", "counts"), [("quarantine", (1, 1, 0)), ("warn", (2, 0, 1)), ("off", (2, 0, 0))]
)
def test_a_rule_of_ones_own_is_a_module_and_its_policies_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, counts: tuple[int, int, int]
) -> None:
    name = f"own_rules_{policy}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "short.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"instruction": "a", "output": "brief"}, {"instruction": "b", "output": "much too long"}]
    code = f"{name}.short"
    done = convert(rows, tmp_path / "out", format="alpaca", validation=0, max_rejects=1, rules={code: policy})  # type: ignore[dict-item]
    warned = done.warnings.get(code, {"count": 0})["count"]
    assert (done.rows["out"], done.rows["quarantined"], warned) == counts
    assert set(done.codes) == ({code} if policy == "quarantine" else set())


def test_what_is_no_rule_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for code, message in (
        ("NO_SUCH", "no rule 'NO_SUCH'"),
        ("json.decoder", "needs RULE"),
        ("json.nothing", "json.nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert(
                [{"instruction": "a", "output": "b"}], tmp_path / "out", format="alpaca", rules={code: "warn"}
            )
    assert not (tmp_path / "out").exists()


def test_a_row_counts_once_as_written_with_warnings_as_rejected_or_as_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(KINDS["png"])

    def row(text: str, answer: str = "nan", **more: Any) -> dict[str, Any]:
        return {"instruction": text, "output": answer, **more}

    rows = [
        row("satu"),
        row("satu"),  # a copy
        row("dua", images=["a.png"]),
        row("tiga <image>", images=["a.png"]),  # MEDIA_TAG, and swift cannot hold it
        row("empat", "#REF!", images=["gone.png"]),
        row("lima <|im_end|>"),
        row("enam", "Baik."),
    ]
    for to, rejected in (("messages", 2), ("swift", 3)):
        done = convert(
            rows, to, format="alpaca", to=to, validation=0, images=".", rules={"SIZE_RECOMMENDED": "off"}
        )
        assert (done.rows["quarantined"], done.rows["duplicates"]) == (rejected, 1)
        lines = [json.loads(line) for line in Path(to, "warnings.jsonl").read_text().splitlines()]
        gone = {
            json.loads(line)["source"]
            for name in ("quarantine", "duplicates")
            for line in Path(to, f"{name}.jsonl").read_text().splitlines()
        }
        assert {line["source"] for line in lines}.isdisjoint(gone)
        assert sum(line["code"] == "ANSWER_MISSING_VALUE" for line in lines) == 5 - rejected
