"""A teacher's answers become training rows: only what the validators accept, everything else with its reason, and
nothing is asked or paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata import Record, Reject, convert, load_rows, read, schemas
from dfkdata.common import locks
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkeval import validators
from dfkeval.backends import Capabilities
from dfkeval.backends._openai import protocol
from dfkeval.cli import app
from dfkeval.inference.labelling.budget import Budget, Prices, prompt_tokens
from dfkeval.inference.labelling.files import totals
from dfkeval.inference.labelling.run import distinct, estimate, label
from dfkeval.inference.labelling.teacher import PROMPTS, Labeller
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.runs import CAPTION, answer_text, caption_gold, caption_text, write_answers


class Teacher:
    """Answers caption n with its gold, or with what `said` has for its id; breaks after `limit` answers."""

    def __init__(self, kind: str = "openai", limit: int = 10_000, **said: str) -> None:
        self.capabilities = Capabilities(remote=kind == "openai")
        self.limit, self.said = limit, said
        self.asked: list[Request] = []
        self.info: dict[str, Any] = {"kind": kind, "model": "teacher-1"}

    hold = 1

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        waiting = iter(requests)
        while held := list(islice(waiting, self.hold)):
            yield from self._answered(held)

    def _answered(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            if len(self.asked) >= self.limit:
                raise BackendError("the line is dead")
            self.asked.append(request)
            text = self.said.get(request.id) or answer_text(caption_gold(int(request.id[1:])), CAPTION)
            failed = text == "DOWN"
            yield Completion(
                id=request.id, text="" if failed else text, error="no answer" if failed else None,
                finish_reason="error" if failed else "stop", n_prompt_tokens=300, n_output_tokens=40,
            )  # fmt: skip

    def close(self) -> None: ...


def captions(count: int) -> list[Record | Reject]:
    return [
        Record(
            id=f"r{i}", group="", source=f"c:{i}", fields={"caption": f"{caption_text(i)} No {i}."},
            meta={"text": caption_text(i)},
        )
        for i in range(count)
    ]  # fmt: skip


WRONG = answer_text({"subjects": [{"name": "truck"}], "actions": [], "setting": "outdoor"}, CAPTION)
PRICES = Prices(prompt=3.0, output=15.0)


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "task_1.jsonl").read_text().splitlines()]


def rejected(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "rejected.jsonl").read_text().splitlines()
    return {found["id"]: found for found in map(json.loads, lines)}


def test_an_accepted_answer_is_a_task_1_row_with_its_accounting(tmp_path: Path) -> None:
    label(Labeller(Teacher(), prices=PRICES), captions(1), tmp_path)
    row = kept(tmp_path)[0]
    system, user, answer = row["messages"]
    assert system["content"] == CAPTION.prompt.system
    assert user["content"] == f"{caption_text(0)} No 0."
    assert answer["tool_calls"][0]["function"] == {
        "name": "emit_caption_schema",
        "arguments": caption_gold(0),
    }
    assert row["tools"] == CAPTION.tools
    assert row["meta"] == {
        "model": "teacher-1", "mode": "strict", "schema_valid": True, "validator_passed": True,
        "input_tokens": 300, "output_tokens": 40, "cost": 0.0015, "source": "c:0",
    }  # fmt: skip


def test_the_rows_are_read_back_and_converted_as_they_are(tmp_path: Path) -> None:
    label(Labeller(Teacher()), captions(6), tmp_path / "labels")
    found = list(read(tmp_path / "labels" / "task_1.jsonl", "task_1"))
    assert [row.gold for row in found if isinstance(row, Record)] == [caption_gold(i) for i in range(6)]
    path = tmp_path / "labels" / "task_1.jsonl"
    summary = convert(path, tmp_path / "out", format="task_1", validation=0)
    assert summary.rows["out"] == 6
    for index, row in enumerate(load_rows(tmp_path / "out" / "train.jsonl")):
        assert row["meta"]["gold"] == caption_gold(index)
        assert row["meta"]["validator_passed"] is True and row["tools"] == CAPTION.tools


def test_null_slots_are_left_out_of_the_strict_row_and_kept_where_they_are_inferred(tmp_path: Path) -> None:
    moody = caption_gold(0) | {"style": None, "mood": "calm"}
    teacher = Teacher(r0=answer_text(moody, CAPTION))
    label(Labeller(teacher, prompt="enhance"), captions(1), tmp_path)
    arguments = kept(tmp_path)[0]["messages"][-1]["tool_calls"][0]["function"]["arguments"]
    assert arguments == caption_gold(0) | {"mood": "calm"}
    assert kept(tmp_path)[0]["meta"]["mode"] == "enhance"
    asked = teacher.asked[0].messages[0]["content"][0]["text"]
    assert asked == PROMPTS["enhance"][1] and "style and mood may be inferred" in asked
    strict = label(Labeller(Teacher(r0=answer_text(moody, CAPTION))), captions(1), tmp_path / "strict")
    assert (strict.kept, dict(strict.reasons)) == (0, {"schema_valid": 1})


def test_every_row_ends_in_one_of_the_two_files_with_its_reason(tmp_path: Path) -> None:
    rows = captions(6)
    copy = Record(id="again", group="", source="c:9", fields=rows[0].fields) if isinstance(
        rows[0], Record
    ) else rows[0]  # fmt: skip
    bad = Reject(source="c:10", code="EMPTY_USER", reason="nothing there")
    teacher = Teacher(r1=WRONG, r2="no call", r3="DOWN", r4=answer_text(caption_gold(4), CAPTION)[:-20])
    found = label(Labeller(teacher, prices=PRICES), [*rows, copy, bad], tmp_path)
    assert [row["id"] for row in kept(tmp_path)] == ["r0", "r5"]
    assert {name: each["reason"].split(":")[0] for name, each in rejected(tmp_path).items()} == {
        "r1": "grounding", "r2": "schema_valid", "r3": "request_failed", "r4": "schema_valid",
        "again": "duplicate", "c:10": "EMPTY_USER",
    }  # fmt: skip
    assert rejected(tmp_path)["r1"]["reason"] == "grounding: 'truck' is not in the source (0.00)"
    assert rejected(tmp_path)["r1"]["text"] == WRONG
    assert (found.kept, found.rejected, found.failed) == (2, 5, 1)
    assert found.cost == pytest.approx(5 * 0.0015)
    assert found.prompt_tokens == 5 * 300


def test_a_stopped_labelling_goes_on_and_asks_only_what_is_missing(tmp_path: Path) -> None:
    whole = label(Labeller(Teacher(r4=WRONG)), captions(8), tmp_path / "whole")
    part = tmp_path / "part"
    with pytest.raises(BackendError):
        label(Labeller(Teacher(limit=5, r4=WRONG, r2="DOWN")), captions(8), part)
    for name in ("task_1.jsonl", "rejected.jsonl"):
        (part / name).write_bytes((part / name).read_bytes() + b'{"id": "half')
    second = Teacher(r4=WRONG)
    assert label(Labeller(second), captions(8), part) == whole == totals(part)
    assert [request.id for request in second.asked] == ["r2", "r5", "r6", "r7"]
    assert sorted(row["id"] for row in kept(part)) == sorted(row["id"] for row in kept(tmp_path / "whole"))
    third = Teacher()
    assert label(Labeller(third), captions(8), part) == whole and third.asked == []


def test_a_folder_goes_on_only_with_the_same_teacher_prompt_and_validators(tmp_path: Path) -> None:
    label(Labeller(Teacher(r0=WRONG)), captions(1), tmp_path)
    for other, reason in (
        (Labeller(Teacher(), validators={"schema_valid": {}}), "validators"),
        (Labeller(Teacher(), tool_choice="auto"), "tool_choice"),
        (Labeller(Teacher(kind="scripted"), tool_choice="auto"), "backend, tool_choice"),
    ):
        with pytest.raises(ConfigError, match=f"begun with another {reason}"):
            label(other, captions(1), tmp_path)


def test_a_row_without_a_caption_is_rejected_and_not_asked(tmp_path: Path) -> None:
    teacher = Teacher()
    row = Record(id="x", group="", source="c:1", fields={"title": "no caption"})
    assert estimate(Labeller(teacher), [row]).rows == 0
    found = label(Labeller(teacher), [row], tmp_path)
    assert (found.kept, dict(found.reasons), teacher.asked) == (0, {"NO_INPUT": 1}, [])


def test_files_of_something_else_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "rejected.jsonl").write_text('{"note": 1}\n')
    with pytest.raises(DataError, match="not a rejected row"):
        label(Labeller(Teacher()), captions(1), tmp_path)
    assert (tmp_path / "rejected.jsonl").read_text() == '{"note": 1}\n'
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        label(Labeller(Teacher()), captions(1), tmp_path / "file")


# --- forced to call the tool


def test_a_server_is_told_to_have_called_the_tool() -> None:
    record = captions(1)[0]
    assert isinstance(record, Record)
    forced = Labeller(Teacher()).item(record).request
    sent = protocol.body(forced, Sampling(), "m")
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "emit_caption_schema"}}
    assert sent["tools"] == CAPTION.tools
    free = Labeller(Teacher(), tool_choice="auto").item(record).request
    assert "tool_choice" not in protocol.body(free, Sampling(), "m")


def test_a_local_engine_is_forced_by_its_grammar() -> None:
    pytest.importorskip("xgrammar")
    teacher = Teacher(kind="transformers")
    teacher.capabilities = Capabilities(constrained=True)
    record = captions(1)[0]
    assert isinstance(record, Record)
    request = Labeller(teacher).item(record).request
    assert request.constraint is not None and request.constraint.kind == "structural_tag"
    assert request.force_tool is None


def test_an_engine_that_cannot_be_forced_is_refused() -> None:
    with pytest.raises(ConfigError, match="'scripted' cannot be made to call the tool"):
        Labeller(Teacher(kind="scripted"))


def test_a_schema_that_is_answered_as_text_has_no_task_1_rows() -> None:
    with pytest.raises(ConfigError, match="'dfk_label' is answered as text"):
        Labeller(Teacher(), schema="dfk_label")


def test_other_validators_decide(tmp_path: Path) -> None:
    wanted = {"schema_valid": {}, "grounding": {"minimum": 0.5}}
    half = {"subjects": [{"name": "horse", "attributes": ["huge"]}], "setting": "outdoor"}
    teacher = Teacher(r1=answer_text(half, CAPTION))
    assert label(Labeller(teacher, validators=wanted), captions(2), tmp_path).kept == 2
    with pytest.raises(ConfigError, match=validators.FAMILY):
        Labeller(Teacher(), validators={"nonsense": {}})


# --- money


def test_the_estimate_counts_what_will_be_asked() -> None:
    rows = [*captions(3), captions(1)[0]]
    found = estimate(Labeller(Teacher(), prices=PRICES, sampling=Sampling(max_new_tokens=100)), rows)
    assert (found.rows, found.total, found.output_tokens) == (3, 4, 300)
    assert found.cost == pytest.approx((found.prompt_tokens * 3 + 300 * 15) / 1e6)
    assert estimate(Labeller(Teacher()), rows).cost is None
    assert [row.id for row in distinct(rows)] == ["r0", "r1", "r2", "r0#2"]


@pytest.mark.parametrize(
    ("prices", "tokens", "cost"),
    [(PRICES, (1_000_000, 0), 3.0), (PRICES, (0, 1_000_000), 15.0), (Prices(), (5, 5), None),
     (PRICES, (None, 5), None)],
)  # fmt: skip
def test_a_cost_is_known_only_where_prices_and_tokens_are(
    prices: Prices, tokens: tuple[int | None, int | None], cost: float | None
) -> None:
    assert prices.cost(*tokens) == cost


@pytest.mark.parametrize("hold", [1, 4])
def test_a_cap_is_never_passed_and_a_larger_one_goes_on(tmp_path: Path, hold: int) -> None:
    """One answer costs 0.0015 here and could cost 0.0075 and its prompt. hold: requests taken together."""
    teacher = Teacher(r1="DOWN")
    teacher.hold = hold
    labeller = Labeller(teacher, prices=PRICES, sampling=Sampling(max_new_tokens=500))
    most = PRICES.cost(prompt_tokens(labeller.item(captions(1)[0]).request), 500) or 0.0  # type: ignore[arg-type]
    cap = most + 2.5 * 0.0015
    found = label(labeller, captions(9), tmp_path, cap=cap)
    assert found.stopped and (found.kept, found.failed) == (3, 1)
    assert found.cost is not None and found.cost <= cap
    again = label(labeller, captions(9), tmp_path, cap=1.0)
    assert not again.stopped and again.kept + again.failed == 9
    assert [request.id for request in teacher.asked].count("r0") == 1


def test_a_cap_without_prices_or_over_answers_that_do_not_tell_their_tokens_is_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="needs prices"):
        Budget(1.0, Prices(prompt=1.0), 10)
    answers = write_answers(tmp_path / "a.jsonl", [("r0", answer_text(caption_gold(0), CAPTION))])
    from dfkeval.backends import scripted

    silent = scripted.start(scripted.Config(completions=answers))
    labeller = Labeller(silent, tool_choice="auto", prices=PRICES)
    assert label(labeller, captions(1), tmp_path / "out", cap=1.0).uncounted == 1
    with pytest.raises(ConfigError, match="1 answers there do not report their tokens"):
        label(labeller, captions(2), tmp_path / "out", cap=1.0)


def test_an_answer_that_does_not_tell_its_tokens_keeps_what_was_set_aside() -> None:
    from collections import deque

    budget = Budget(0.01, PRICES, 100)
    request = Request(id="a", messages=[])
    assert list(budget.admitted(deque([request]))) == [request]
    aside = budget.reserved["a"]
    budget.settle(Completion(id="a", text="x"))
    assert (budget.spent, budget.reserved) == (aside, {})


# --- the command


def call(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app.app, ["label", *map(str, arguments)])


def test_the_command_says_what_it_expects_and_what_it_did(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "caption": caption_text(i)} for i in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [("r0", answer_text(caption_gold(0), CAPTION)), ("r1", WRONG)]
    answers = write_answers(tmp_path / "a.jsonl", texts)
    backend = f"{{kind: scripted, completions: {answers}}}"
    common = [tmp_path / "in.jsonl", "--backend", backend, "--tool-choice", "auto", "--out", tmp_path / "out"]
    dry = call(*common, "--dry-run")
    assert dry.exit_code == 0 and not (tmp_path / "out").exists()
    assert "3 captions to ask, of 3 rows: about" in dry.stderr and "cost unknown" in dry.stderr
    done = call(*common)
    assert done.exit_code == 1, "one request failed"
    assert "kept: 1\nrejected: 2 (grounding 1, request_failed 1)\n" in done.stdout
    assert (
        f"dfkdata convert {tmp_path / 'out' / 'task_1.jsonl'} --from task_1 --schema caption" in done.stdout
    )
    write_answers(answers, [*texts, ("r2", answer_text(caption_gold(2), CAPTION))])
    again = call(*common, "--limit", "3")
    assert again.exit_code == 0 and "kept: 2\n" in again.stdout


def test_two_processes_never_label_into_one_folder(tmp_path: Path) -> None:
    with (
        locks.alone(tmp_path / ".lock"),
        pytest.raises(ConfigError, match="another labelling writes into it"),
    ):
        label(Labeller(Teacher()), captions(1), tmp_path)
    assert label(Labeller(Teacher()), captions(1), tmp_path).kept == 1


SLOW = """
import time
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


def test_a_killed_labelling_goes_on_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    rows = [{"id": f"r{i:02d}", "caption": f"{caption_text(i)} No {i}."} for i in range(30)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [
        (str(row["id"]), WRONG if i % 3 == 1 else answer_text(caption_gold(i), CAPTION))
        for i, row in enumerate(rows)
    ]
    answers = write_answers(tmp_path / "a.jsonl", texts)
    common = ["--backend", f"{{kind: scripted, completions: {answers}}}", "--tool-choice", "auto", "--out"]
    command = ["label", str(tmp_path / "in.jsonl"), *common]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *command, str(tmp_path / "killed")])

    def lines() -> int:
        found = (tmp_path / "killed").glob("*.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in found)

    deadline = time.monotonic() + 60
    while lines() < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 6 <= lines() < 30
    assert call(tmp_path / "in.jsonl", *common, tmp_path / "killed").exit_code == 0
    assert call(tmp_path / "in.jsonl", *common, tmp_path / "whole").exit_code == 0
    assert len(kept(tmp_path / "whole")) == 20 and len(rejected(tmp_path / "whole")) == 10
    for name in ("task_1.jsonl", "rejected.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_command_stops_before_its_cap_and_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"id": f"r{i}", "caption": f"x {i}"}) + "\n" for i in "ab")
    )
    backend = f"{{kind: scripted, completions: {write_answers(tmp_path / 'a.jsonl', [])}}}"
    common = [tmp_path / "in.jsonl", "--backend", backend, "--tool-choice", "auto", "--out", tmp_path / "out"]
    unpriced = call(*common, "--max-cost", "1")
    assert isinstance(unpriced.exception, ConfigError) and not (tmp_path / "out").exists()
    done = call(*common, "--max-cost", "0.000001", "--price-prompt", "3", "--price-output", "15")
    assert done.exit_code == 1 and "2 rows are not asked" in done.stderr
    assert "a larger one goes on there" in done.stderr and "kept: 0\nrejected: 0\n" in done.stdout


def test_wrong_validators_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"caption": "x"}\n')
    (tmp_path / "a.jsonl").write_text("")
    backend = f"{{kind: scripted, completions: {tmp_path / 'a.jsonl'}}}"
    done = call(tmp_path / "in.jsonl", "--backend", backend, "--out", tmp_path, "--validators", "[grounding]")
    assert isinstance(done.exception, ConfigError) and "write names with options" in str(done.exception)


def test_a_tiny_teacher_is_forced_into_calls_by_its_grammar(tmp_path: Path) -> None:
    """The built-in model knows no such task; the grammar alone makes its answers calls of the tool."""
    pytest.importorskip("xgrammar")
    torch = pytest.importorskip("torch")
    from dfkeval.backends.transformers import Transformers
    from dfkeval.models import loader

    torch.set_num_threads(1)
    backend = Transformers(loader.load("tiny", dtype="float32", device="cpu"))
    labeller = Labeller(backend, validators={"schema_valid": {}}, sampling=Sampling(max_new_tokens=160))
    found = label(labeller, captions(2), tmp_path)
    said = [row["messages"][-1] for row in kept(tmp_path)]
    texts = [each["text"] for each in rejected(tmp_path).values()]
    assert found.kept + found.rejected == 2
    assert all(text.startswith("<tool_call>") for text in texts)
    assert all(turn["tool_calls"][0]["function"]["name"] == "emit_caption_schema" for turn in said)
    assert schemas.load("caption").tools == labeller.schema.tools
