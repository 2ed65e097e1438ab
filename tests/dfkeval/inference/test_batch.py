"""Many rows without gold: one typed line a row, whatever the row, the model or an interruption does; and how
sure the model must be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from dfkdata import Record, Reject, prompt, schemas
from dfkdata.common import locks
from dfkdata.common.errors import ConfigError, DataError
from dfkeval import PredictionError, Predictor, evaluate
from dfkeval.backends import Capabilities
from dfkeval.cli import app
from dfkeval.inference import inputs
from dfkeval.inference.batch import predict_many
from dfkeval.inference.inputs import numbered
from dfkeval.models import metadata
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.runs import CAPTION, DFK, answer_text, caption_gold, dfk_gold, write_answers, write_rows

GOOD = answer_text(dfk_gold(2), DFK)
CAPTION_TOOL = CAPTION.tools


class Sure:
    """Answers every request, sure of "fitnah" as far as it is told; some ids fail."""

    capabilities = Capabilities()

    def __init__(self, fitnah: float | None = None, failing: Iterable[str] = (), text: str = GOOD) -> None:
        self.fitnah, self.failing, self.text = fitnah, set(failing), text
        self.asked: list[Request] = []
        self.sampling: Sampling | None = None
        self.info: dict[str, Any] = {"kind": "test"}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        self.sampling = sampling
        for request in reversed(list(requests)):  # engines answer in any order
            self.asked.append(request)
            if request.id in self.failing:
                yield Completion(id=request.id, text="", finish_reason="error", error="down")
                continue
            probs = None
            if self.fitnah is not None and request.slot is not None:
                rest = (1 - self.fitnah) / 3
                probs = {name: self.fitnah if name == "fitnah" else rest for name in request.slot.written}
            yield Completion(id=request.id, text=self.text, label_probs=probs)

    def close(self) -> None: ...


def lines(path: Path) -> dict[str, dict[str, Any]]:
    return {found["id"]: found for found in map(json.loads, path.read_text().splitlines())}


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app.app, ["predict", *map(str, arguments)])


def records(count: int) -> list[Record | Reject]:
    return [Record(id=f"r{i}", group="g", source=f"f:{i}", fields={"title": f"T{i}"}) for i in range(count)]


# --- what is read


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "deep/c.PNG"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_of_pictures_gives_one_row_a_picture(pictures: Path) -> None:
    rows = list(inputs.rows(pictures))
    assert [row.id for row in rows if isinstance(row, Record)] == ["a.jpg", "b.png", "deep/c.PNG"]
    assert all(isinstance(row, Record) and Path(row.images[0]).is_file() for row in rows)


def test_a_folder_with_nothing_to_ask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither pictures"):
        list(inputs.rows(tmp_path))


def test_columns_are_inputs_by_their_names_and_no_answer_is_needed(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_text(
        "id,title,text,img_path,likes\nx,Judul,Isi,\"['a.jpg', 'b.png']\",3\n,,,,\ny,,,gone.png,1\n"
    )
    first, second = inputs.rows(path, images=pictures)  # a blank line of a table is not a row
    assert isinstance(first, Record)
    assert (first.id, first.fields) == ("x", {"title": "Judul", "text": "Isi", "likes": "3"})
    assert [Path(image).name for image in first.images] == ["a.jpg", "b.png"]
    assert isinstance(second, Reject) and second.code == "IMG_MISSING"


def test_json_rows_may_hold_lists_numbers_and_other_things(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"caption": "A dog.", "n": 1.5, "flag": true, "deep": {"a": 1}, "none": null}\n'
        '{"caption": "A dog.", "image": [1]}\n'
        '{"caption": "same"}\n{"caption": "same"}\n'
    )
    first, second, third, fourth = inputs.rows(path)
    assert isinstance(first, Record) and first.fields == {"caption": "A dog.", "n": "1.5"}
    assert first.meta == {"text": "A dog."}
    assert isinstance(second, Reject) and second.code == "IMG_LIST"
    assert isinstance(third, Record) and isinstance(fourth, Record) and third.id == fourth.id
    assert [getattr(row, "id", "") for row in numbered([third, fourth])] == [third.id, f"{third.id}#2"]


# --- one line a row


def test_every_row_gives_one_line_copies_and_rejects_included(tmp_path: Path) -> None:
    reject = Reject(source="f:9", code="IMG_MISSING", reason="gone")
    rows = [*records(2), records(1)[0], reject, reject]
    counts = predict_many(Predictor(schema="dfk_label", backend=Sure()), rows, tmp_path / "p.jsonl")
    assert counts == {"ok": 3, "rejected": 2}
    found = lines(tmp_path / "p.jsonl")
    assert set(found) == {"r0", "r1", "r0#2", "f:9", "f:9#2"}
    assert found["r0#2"]["source"] == "f:0"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("a a a#2", "a a#2 a#2#2"), ("a a#2 a", "a a#2 a#3"), ("a#2 a a a", "a#2 a a#3 a#4")],
)
def test_a_name_that_looks_like_a_numbered_one_stays_a_row_of_its_own(
    tmp_path: Path, given: str, wanted: str
) -> None:
    rows = [Record(id=name, group="", source="f", fields={"title": name}) for name in given.split()]
    assert [row.id for row in numbered(rows) if isinstance(row, Record)] == wanted.split()
    predict_many(Predictor(schema="dfk_label", backend=Sure()), rows, tmp_path / "p.jsonl")
    assert set(lines(tmp_path / "p.jsonl")) == set(wanted.split())


def test_an_answer_that_never_came_is_a_failed_request_of_its_own(tmp_path: Path) -> None:
    class Forgetful(Sure):
        def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
            yield from list(super().generate(requests, sampling))[1:]

    counts = predict_many(
        Predictor(schema="dfk_label", backend=Forgetful()), records(3), tmp_path / "p.jsonl"
    )
    assert counts == {"ok": 2, "request_failed": 1}


def test_a_row_without_anything_that_the_prompt_shows_is_rejected_and_not_asked(tmp_path: Path) -> None:
    backend = Sure()
    row = Record(id="x", group="", source="f:1", fields={"likes": "3"})
    predict_many(Predictor(schema="dfk_label", backend=backend), [row], tmp_path / "p.jsonl")
    line = lines(tmp_path / "p.jsonl")["f:1"]
    assert line["outcome"] == "rejected" and backend.asked == []
    assert line["problems"] == [
        "NO_INPUT: the prompt of dfk_label shows title, text and images; the row has likes"
    ]
    with pytest.raises(ConfigError, match="nothing to ask: give an image or one of title, text"):
        Predictor(schema="dfk_label", backend=backend)(title=" ")


def test_a_folder_is_no_file_for_answers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        predict_many(Predictor(schema="dfk_label", backend=Sure()), records(1), tmp_path)


def test_failed_requests_are_asked_again_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    first = predict_many(Predictor(schema="dfk_label", backend=Sure(failing=["r1", "r3"])), records(5), path)
    assert first == {"ok": 3, "request_failed": 2}
    again = Sure()
    assert predict_many(Predictor(schema="dfk_label", backend=again), records(5), path) == {"ok": 5}
    assert sorted(request.id for request in again.asked) == ["r1", "r3"]
    assert len(path.read_text().splitlines()) == 5


def test_the_shards_of_an_input_are_all_of_it_and_nothing_twice(tmp_path: Path) -> None:
    predictor = Predictor(schema="dfk_label", backend=Sure())
    whole = predict_many(predictor, records(10), tmp_path / "whole.jsonl")
    parts = [predict_many(predictor, records(10), tmp_path / f"{n}.jsonl", part=(n, 3)) for n in (1, 2, 3)]
    assert [part["ok"] for part in parts] == [4, 3, 3] and whole == {"ok": 10}
    together = {name: line for n in (1, 2, 3) for name, line in lines(tmp_path / f"{n}.jsonl").items()}
    assert together == lines(tmp_path / "whole.jsonl")


def test_a_file_goes_on_only_with_the_same_model_schema_and_sampling(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    predict_many(Predictor(schema="dfk_label", backend=Sure()), records(1), path)
    with pytest.raises(ConfigError, match="begun with another sampling"):
        changed = Predictor(schema="dfk_label", backend=Sure(), settings=["max_new_tokens=3"])
        predict_many(changed, records(1), path)
    other = Sure()
    other.info = {"kind": "test", "weights_sha256": "other"}
    with pytest.raises(ConfigError, match="begun with another backend"):
        predict_many(Predictor(schema="dfk_label", backend=other), records(1), path)
    assert other.asked == []


def test_a_broken_line_in_the_middle_is_not_swallowed(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    predict_many(Predictor(schema="dfk_label", backend=Sure()), records(2), path)
    path.write_bytes(b"{broken}\n" + path.read_bytes())
    with pytest.raises(DataError, match=r"p\.jsonl:1: not a prediction"):
        predict_many(Predictor(schema="dfk_label", backend=Sure()), records(2), path)


def test_two_processes_never_write_into_one_file(tmp_path: Path) -> None:
    predictor = Predictor(schema="dfk_label", backend=Sure())
    path = tmp_path / "deep" / "p.jsonl"
    with locks.alone(path.with_name("p.jsonl.lock")), pytest.raises(
        ConfigError, match=r"p\.jsonl: another prediction writes into it"
    ):  # fmt: skip
        predict_many(predictor, records(1), path)
    assert not path.exists()
    assert predict_many(predictor, records(1), path) == {"ok": 1}
    assert not path.with_name("p.jsonl.lock").exists()


SLOW = """
import sys, time
from dfkeval import backends
import dfkeval.backends.scripted as scripted
answer = scripted.Scripted.generate
def slowly(self, requests, sampling):
    for found in answer(self, requests, sampling):
        time.sleep(0.05)
        yield found
scripted.Scripted.generate = slowly
from dfkeval.cli.app import main
main()
"""


def test_a_killed_prediction_goes_on_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    rows = [{"id": f"r{i:02d}", "title": f"T{i}"} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = write_answers(tmp_path / "a.jsonl", [(str(row["id"]), GOOD) for row in rows])
    backend = f"{{kind: scripted, completions: {answers}}}"

    def arguments(out: str) -> list[str]:
        return ["predict", "--backend", backend, "--schema", "dfk_label",
                "--input", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / out)]  # fmt: skip

    process = subprocess.Popen([sys.executable, "-c", SLOW, *arguments("killed.jsonl")])
    path = tmp_path / "killed.jsonl"
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = path.read_bytes().count(b"\n")
    assert 5 <= kept < 30
    assert CliRunner().invoke(app.app, arguments("killed.jsonl")).exit_code == 0
    assert CliRunner().invoke(app.app, arguments("whole.jsonl")).exit_code == 0
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# --- how sure


def test_a_valid_answer_below_the_threshold_is_abstained_and_has_no_value(tmp_path: Path) -> None:
    predictor = Predictor(schema="dfk_label", backend=Sure(0.7), threshold=0.8)
    assert predict_many(predictor, records(1), tmp_path / "p.jsonl") == {"abstained": 1}
    line = lines(tmp_path / "p.jsonl")["r0"]
    assert (line["value"], line["label"], line["confidence"]) == (None, "fitnah", 0.7)
    assert line["problems"] == ["the confidence in 'fitnah' is 0.700, below 0.8"]
    assert sum(line["label_probs"].values()) == pytest.approx(1.0)
    with pytest.raises(PredictionError, match=r"\(abstained\): the confidence in 'fitnah' is 0.700"):
        predictor(title="x")


def test_at_the_threshold_the_answer_is_taken() -> None:
    assert Predictor(schema="dfk_label", backend=Sure(0.8), threshold=0.8)(title="x") == dfk_gold(2)


def test_a_threshold_by_label_binds_only_that_label() -> None:
    assert Predictor(schema="dfk_label", backend=Sure(0.5), threshold={"netral": 0.9})(title="x")
    with pytest.raises(PredictionError, match="abstained"):
        Predictor(schema="dfk_label", backend=Sure(0.5), threshold={"fitnah": 0.9})(title="x")


def test_an_unknown_confidence_abstains_and_says_so() -> None:
    with pytest.raises(PredictionError, match="confidence in 'fitnah' is not known"):
        Predictor(schema="dfk_label", backend=Sure(None), threshold=0.1)(title="x")


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [(1.5, "between 0 and 1"), ({"fitna": 0.5}, "'fitna' is not one of"), ({"fitnah": -1.0}, "between")],
)
def test_a_threshold_that_cannot_be_met_is_refused(threshold: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Predictor(schema="dfk_label", backend=Sure(), threshold=threshold)


def test_a_schema_without_labels_has_no_threshold() -> None:
    with pytest.raises(ConfigError, match="no field with the role Label"):
        Predictor(schema="caption", backend=Sure(), threshold=0.5)


# --- what the model was trained with

OTHER = [{"type": "function", "function": {"name": "emit_caption_schema", "parameters": {"type": "object"}}}]


def scaffold_file(path: Path, tools: Any = OTHER) -> Path:
    call = {"type": "function", "function": {"name": "emit_caption_schema", "arguments": {}}}
    turns = [
        {"role": "system", "content": "Old words."},
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    path.write_text(json.dumps({"messages": turns, "tools": tools}) + "\n")
    return path


def test_a_scaffold_replaces_system_text_and_tools_and_nothing_else(tmp_path: Path) -> None:
    backend = Sure(text=answer_text(caption_gold(1), CAPTION))
    predictor = Predictor(
        schema="caption", backend=backend, scaffold=scaffold_file(tmp_path / "task_1.jsonl")
    )
    assert predictor(caption="A small horse.") == caption_gold(1)
    system, user = backend.asked[0].messages
    assert system["content"] == [{"type": "text", "text": "Old words."}]
    assert user["content"] == [{"type": "text", "text": "A small horse."}]
    assert backend.asked[0].tools == OTHER


def test_a_scaffold_with_another_tool_is_refused(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "say", "parameters": {}}}]
    with pytest.raises(ConfigError, match="its tools are say, and schema 'caption' reads calls of"):
        Predictor(schema="caption", backend=Sure(), scaffold=scaffold_file(tmp_path / "t.jsonl", tools))
    with pytest.raises(ConfigError, match="is answered as text"):
        Predictor(schema="dfk_label", backend=Sure(), scaffold=scaffold_file(tmp_path / "t.jsonl"))


@pytest.mark.parametrize("place", ["adapter", "model"])
def test_the_note_of_an_adapter_or_a_merged_model_decides_what_is_asked(tmp_path: Path, place: str) -> None:
    note = metadata.ModelMetadata(
        schema="caption", form="tool", system_prompt="Trained so.", tools=OTHER, thinking=True
    )
    metadata.write(tmp_path, note)
    backend = Sure(text=answer_text(caption_gold(1), CAPTION))
    where: dict[str, Any] = {place: tmp_path}
    predictor = Predictor(backend=backend, **where)
    predictor(caption="A small horse.")
    assert predictor.schema.name == "caption"
    assert backend.asked[0].messages[0]["content"][0]["text"] == "Trained so."
    assert backend.asked[0].tools == OTHER
    assert backend.sampling is not None and backend.sampling.thinking


def test_what_the_note_contradicts_is_refused(tmp_path: Path) -> None:
    metadata.write(tmp_path, metadata.ModelMetadata(schema="dfk_label", form="card", thinking=False))
    with pytest.raises(ConfigError, match="form was 'card' in training and is 'code'"):
        Predictor(adapter=tmp_path, variant="code", backend=Sure())
    with pytest.raises(ConfigError, match="thinking was False in training and is True"):
        Predictor(adapter=tmp_path, sampling=Sampling(thinking=True), backend=Sure())
    metadata.write(
        tmp_path, metadata.ModelMetadata(schema="caption", system_prompt="Trained so.", tools=OTHER)
    )
    with pytest.raises(ConfigError, match="system_prompt was 'Trained so"):
        Predictor(adapter=tmp_path, scaffold=scaffold_file(tmp_path / "t.jsonl"), backend=Sure())


@pytest.mark.parametrize("place", ["adapter", "model"])
def test_a_run_refuses_what_the_note_of_an_adapter_or_a_merged_model_contradicts(
    tmp_path: Path, place: str
) -> None:
    metadata.write(tmp_path, metadata.ModelMetadata(schema="caption", form="tool", thinking=True))
    data = write_rows(tmp_path / "d.jsonl", DFK, 2)
    backend = {"kind": "transformers", "model": "tiny"} | {place: str(tmp_path)}
    config = EvalConfig.model_validate({"data": data, "backend": backend})
    with pytest.raises(
        ConfigError, match="schema was 'caption' in training and is 'dfk_label' here"
    ) as found:
        evaluate(config, tmp_path / "run")
    assert "thinking was True in training" in str(found.value)


# --- the command


def test_the_command_asks_many_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,title\nx,Judul\ny,Lain\n")
    answers = write_answers(tmp_path / "a.jsonl", [("x", GOOD)])
    backend = tmp_path / "backend.yaml"
    backend.write_text(f"kind: scripted\ncompletions: {answers.name}\n")
    out = tmp_path / "p.jsonl"
    done = call("--backend", backend, "--schema", "dfk_label", "--input", tmp_path / "rows.csv", "--out", out)
    assert done.exit_code == 1
    assert done.stdout == f"ok: 1\nrequest_failed: 1\nanswers: {out}\n"
    assert "1 requests failed; the same command again asks only these" in done.stderr
    assert lines(out)["x"]["value"] == dfk_gold(2)


def test_the_command_prints_one_answer_as_json_and_with_confidences_the_whole_prediction(
    tmp_path: Path,
) -> None:
    answers = write_answers(tmp_path / "a.jsonl", [("1", GOOD)])
    backend = f"{{kind: scripted, completions: {answers}}}"
    plain = call("--backend", backend, "--schema", "dfk_label", "--field", "title=x")
    assert (plain.exit_code, json.loads(plain.stdout)) == (0, dfk_gold(2))
    sure = call("--backend", backend, "--schema", "dfk_label", "--field", "title=x", "--threshold", "0.5")
    assert sure.exit_code == 1
    found = json.loads(sure.stdout)
    assert (found["outcome"], found["value"], found["label"]) == ("abstained", None, "fitnah")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--field", "title=x"], "say which model answers"),
        (["--model", "tiny", "--input", "x.csv"], "need both"),
        (["--model", "tiny", "--from", "dfk_csv", "--field", "title=x"], "go with --input"),
        (["--model", "tiny"], "nothing to ask"),
        (["--model", "tiny", "--input", "x", "--out", "y", "--field", "a=b"], "leave them out"),
        (["--model", "m", "--url", "http://127.0.0.1:9/v1", "--adapter", "a", "--field", "t=x"], "server"),
        (["--backend", "{kind: nothing}", "--field", "title=x"], "is not one of dfkeval.backends"),
        (["--backend", "[1]", "--field", "title=x"], "neither a readable file nor a mapping"),
        (["--model", "tiny", "--schema", "dfk_label", "--field", "title"], "write it as name=text"),
        (["--model", "tiny", "--threshold", "much", "--field", "t=x"], "write a number"),
        (["--model", "tiny", "--threshold", "1", "--threshold", "2", "--field", "t=x"], "one number"),
        (["--model", "tiny", "--schema", "dfk_label", "--set", "max_tokens=3", "--field", "t=x"], "unknown"),
    ],
)
def test_a_request_that_cannot_work_says_so_before_anything_is_loaded(
    arguments: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("dfkeval.models.loader.load", load)
    done = call(*arguments)
    assert isinstance(done.exception, ConfigError), (done.output, done.exception)
    assert reason in str(done.exception)


def test_videos_and_audio_of_inputs_are_asked_about_or_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"film")
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"caption": "Isi.", "videos": ["v.mp4"]}\n{"caption": "Isi.", "audios": "gone.wav"}\n{"videos": 3}\n'
    )
    shown, missing, other = inputs.rows(path)
    assert isinstance(shown, Record) and [Path(file).name for file in shown.videos] == ["v.mp4"]
    turns = prompt(shown, schemas.load("caption"))
    assert {"type": "video"} in turns[-1]["content"], "the question shows it"
    assert isinstance(missing, Reject) and missing.code == "MEDIA_MISSING"
    assert isinstance(other, Reject) and other.code == "IMG_LIST"
