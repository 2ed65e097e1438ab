"""The response cache: everything that decides an answer is in its key, and only answers are kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

import dfkeval
from dfkdata.common.errors import ConfigError, DataError
from dfkeval.backends import Capabilities
from dfkeval.backends.transformers import Transformers
from dfkeval.evaluation import response_cache
from dfkeval.evaluation.response_cache import CachedBackend
from dfkeval.models import loader
from dfkeval.models.identity import AnswerIdentity
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Constraint, LabelSlot, Request, Sampling
from tests.helpers.runs import DFK, config_of, gold_answers, write_answers, write_rows

IDENTITY = {"weights_sha256": "w", "adapter_sha256": None, "template_sha256": "t", "dtype": "float32"}


class Engine:
    """A backend that counts what it is asked; `answer` makes a completion from its request."""

    capabilities = Capabilities(cacheable=True)

    def __init__(self, answer: Any = None, **identity: Any) -> None:
        self.identity: AnswerIdentity | None = AnswerIdentity.of(IDENTITY | identity)
        self.info: dict[str, Any] = {"kind": "engine"}
        self.asked: list[str] = []
        self.answer = answer or (lambda request: Completion(id=request.id, text=f"to {request.id}"))

    def fingerprint(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        return {
            "prompt": json.dumps(request.messages),
            "images": [Path(p).read_text() for p in request.images],
        }

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in requests:
            self.asked.append(request.id)
            yield self.answer(request)

    def close(self) -> None: ...


def question(text: str = "q", **more: Any) -> Request:
    return Request(**({"id": "1", "messages": [{"role": "user", "content": text}]} | more))


SAMPLING = Sampling(temperature=0.5)


def hits(folder: Path, engine: Engine, request: Request, sampling: Sampling = SAMPLING) -> bool:
    found = list(CachedBackend(engine, folder).generate([request], sampling))
    assert len(found) == 1 and found[0].id == request.id
    assert found[0].cached is (engine.asked == [])
    return found[0].cached


#: Another value for every setting; a new field must be added here.
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 511, "temperature": 0.6, "top_p": 0.9, "top_k": 7, "min_p": 0.2,
    "repetition_penalty": 1.1, "stop": ("x",), "seed": 1, "thinking": True, "thinking_budget": 9,
    "reasoning_effort": "low",
}  # fmt: skip
SLOT = LabelSlot(marker="Label: ", written={"a": "a"}, closing="")
REQUESTS: dict[str, Any] = {
    "draw_index": 1,
    "constraint": Constraint(kind="json_object"),
    "slot": SLOT,
    "force_tool": "f",
    "messages": [{"role": "user", "content": "other"}],
}


def test_an_equal_question_is_answered_from_the_cache_under_any_id(tmp_path: Path) -> None:
    assert not hits(tmp_path, Engine(), question())
    assert hits(tmp_path, Engine(), question())
    assert hits(tmp_path, Engine(), question(id="another row"))
    assert hits(tmp_path, Engine(), question(), SAMPLING.model_copy(update={"repeats": 4}))


def test_every_setting_that_is_changed_misses(tmp_path: Path) -> None:
    assert SETTINGS.keys() == Sampling.model_fields.keys() - {"repeats"}
    hits(tmp_path, Engine(), question())
    for name, value in SETTINGS.items():
        assert not hits(tmp_path, Engine(), question(), SAMPLING.model_copy(update={name: value})), name
    for kind, text in (("grammar", "root ::= a"), ("grammar", "root ::= b"), ("json_schema", "root ::= a")):
        request = question(constraint=Constraint(kind=kind, text=text))
        assert not hits(tmp_path, Engine(), request), (kind, text)


def test_every_part_of_the_request_that_is_changed_misses(tmp_path: Path) -> None:
    seen_elsewhere = {
        "id",
        "images",
        "videos",
        "tools",
        "max_image_side",
        "template_options",
        "max_prompt_tokens",
        "deadline",
    }  # no part of the key; in the fingerprint of the backend, or of what an answer says no part
    assert REQUESTS.keys() == set(Request.__struct_fields__) - seen_elsewhere
    hits(tmp_path, Engine(), question())
    for name, value in REQUESTS.items():
        assert not hits(tmp_path, Engine(), question(**{name: value})), name


def test_every_fact_about_the_model_that_is_changed_misses(tmp_path: Path) -> None:
    hits(tmp_path, Engine(), question())
    for name in IDENTITY:
        assert not hits(tmp_path, Engine(**{name: "other"}), question()), name


def test_a_picture_counts_by_what_is_in_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("red")
    second.write_text("red")
    folder = tmp_path / "cache"
    assert not hits(folder, Engine(), question(images=(str(first),)))
    assert hits(folder, Engine(), question(images=(str(second),)))
    first.write_text("blue")
    assert not hits(folder, Engine(), question(images=(str(first),)))


@pytest.mark.parametrize(
    "more",
    [
        {"finish_reason": "length"},
        {"finish_reason": "error", "error": "refused"},
        {"finish_reason": "error", "error": "60 s", "timed_out": True},
        {"unclosed_think": True},
    ],
)
def test_failures_truncations_and_unclosed_thoughts_are_never_kept(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    def answer(request: Request) -> Completion:
        return Completion(id=request.id, text="x", **more)

    assert not hits(tmp_path, Engine(answer), question())
    assert not hits(tmp_path, Engine(answer), question())
    assert not list(tmp_path.rglob("*.json"))


def test_a_broken_or_misplaced_file_is_said_and_never_an_answer(tmp_path: Path) -> None:
    hits(tmp_path, Engine(), question())
    path = next(tmp_path.rglob("*.json"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(DataError, match="delete the file"):
        hits(tmp_path, Engine(), question())
    path.write_bytes(whole.replace(path.stem.encode(), b"0" * 64))
    with pytest.raises(DataError, match="another key"):
        hits(tmp_path, Engine(), question())


def test_a_place_that_is_no_folder_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(ConfigError, match=r"cannot be written.*name another folder"):
            CachedBackend(Engine(), place)


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    answers = write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 2))
    config = config_of(data, answers, ["validity"], cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="nothing says what backend 'scripted' answers with"):
        dfkeval.evaluate(config, tmp_path / "run")
    fields = {
        "data": data,
        "backend": {"kind": "openai", "base_urls": ["http://127.0.0.1:9/v1"], "model": "m"},
    }
    with pytest.raises(ConfigError, match=r"set backend\.revision"):
        dfkeval.evaluate(EvalConfig.model_validate(fields | {"cache": tmp_path / "cache"}), tmp_path / "run2")


def test_a_second_run_asks_nothing_and_ends_equal(tmp_path: Path) -> None:
    texts = dict(gold_answers(DFK, 4))
    data = write_rows(tmp_path / "test.jsonl", DFK, 4)
    config = config_of(data, tmp_path / "none.jsonl", ["validity", "labels"], cache=tmp_path / "cache")

    def answer(request: Request) -> Completion:
        return Completion(id=request.id, text=texts[request.id], n_output_tokens=5)

    first, second = Engine(answer), Engine(answer)
    one = dfkeval.evaluate(config, tmp_path / "one", backend=first)
    two = dfkeval.evaluate(config, tmp_path / "two", backend=second)
    assert (len(first.asked), second.asked) == (4, [])
    assert one.summary == two.summary
    facts = [run.environment["generation"] for run in (one, two)]
    assert [(each["cached"], each["output_tokens"]) for each in facts] == [(0, 20), (4, 0)]
    dfkeval.evaluate(config.model_copy(update={"cache": None}), tmp_path / "two", backend=Engine(answer))


@pytest.fixture(scope="module")
def tiny() -> loader.Loaded:
    pytest.importorskip("torch")
    return loader.load("tiny", dtype="float32", device="cpu")


def test_the_tiny_model_is_known_by_its_weights_template_prompt_and_resized_pictures(
    tiny: loader.Loaded, tmp_path: Path
) -> None:
    from PIL import Image

    def show(colour: str, side: int, name: str) -> dict[str, Any]:
        path = tmp_path / name
        Image.new("RGB", (side, side), colour).save(path)
        parts = [{"type": "image"}, {"type": "text", "text": "q"}]
        request = question(messages=[{"role": "user", "content": parts}], images=(str(path),))
        return Transformers(tiny).fingerprint(request, Sampling())

    assert show("red", 64, "a.png") == show("red", 64, "b.png") == show("red", 64, "a.bmp")
    assert show("red", 64, "a.png") != show("blue", 64, "a.png")
    assert show("red", 64, "a.png") != show("red", 128, "a.png")
    request = question(messages=[{"role": "user", "content": "q"}])
    plain = Transformers(tiny).fingerprint(request, Sampling())
    assert plain != Transformers(tiny).fingerprint(request, Sampling(thinking=True))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert plain != Transformers(tiny).fingerprint(structs.replace(request, tools=tools), Sampling())
    known = AnswerIdentity.of(tiny.info).for_cache()
    assert known is not None
    for name in ("weights_sha256", "adapter_sha256", "template_sha256", "dtype", "attention", "kernels"):
        assert AnswerIdentity.of(tiny.info | {name: "other"}).for_cache() != known, name
    assert AnswerIdentity.of(tiny.info | {"weights_sha256": None, "revision": None}).for_cache() is None


def test_a_live_model_is_never_cached_since_its_weights_change(tiny: loader.Loaded, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave `cache` out"):
        CachedBackend(Transformers(tiny), tmp_path)


def test_real_answers_come_back_the_same(tiny: loader.Loaded, tmp_path: Path) -> None:
    backend = Transformers(tiny)
    backend.identity = AnswerIdentity.of(tiny.info)
    sampling = Sampling(max_new_tokens=40, temperature=1.0, stop=("a", "e", "i", "n"))
    requests = [question(f"kata {index}", id=str(index)) for index in range(4)]
    requests = [structs.replace(each, messages=[{"role": "user", "content": [
        {"type": "text", "text": f"kata {each.id}"}]}]) for each in requests]  # fmt: skip
    first = {each.id: each for each in CachedBackend(backend, tmp_path).generate(requests, sampling)}
    kept = {name for name, each in first.items() if response_cache.finished(each)}
    assert kept
    again = {each.id: each for each in CachedBackend(backend, tmp_path).generate(requests, sampling)}
    assert {name for name, each in again.items() if each.cached} == kept
    assert {name: each.text for name, each in again.items()} == {
        name: each.text for name, each in first.items()
    }
