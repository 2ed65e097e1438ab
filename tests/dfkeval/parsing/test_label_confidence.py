"""The probability of each label is what its definition says, computed slowly and one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkdata.media.images import open_image
from dfkeval import evaluate, load_run
from dfkeval.backends import Capabilities
from dfkeval.backends._local.label_probabilities import with_label_probs
from dfkeval.backends.openai import body, label_probs
from dfkeval.backends.transformers import Transformers
from dfkeval.evaluation.evaluate import score
from dfkeval.models import loader
from dfkeval.parsing.label_confidence import continuations, from_alternatives, normalised, slot_of, with_slot
from dfkeval.types import Completion, LabelSlot, Request, Sampling
from tests.helpers.runs import (
    CAPTION,
    DFK,
    answer_text,
    config_of,
    dfk_gold,
    gold_answers,
    write_answers,
    write_rows,
)

SLOT = slot_of(DFK)
assert SLOT is not None


def asked(name: str = "a", words: str = "Judul: bersama", image: Path | None = None) -> Request:
    parts: list[dict[str, Any]] = [{"type": "text", "text": words}, *([{"type": "image"}] if image else [])]
    images = (str(image),) if image else ()
    return Request(id=name, messages=[{"role": "user", "content": parts}], images=images, slot=SLOT)


# --- where the label stands


def test_the_slot_of_a_text_form_is_its_marker_and_what_follows() -> None:
    assert (SLOT.marker, SLOT.closing) == ("Label: ", "\n\nAnalisis:")
    assert (
        list(SLOT.written)
        == list(SLOT.written.values())
        == ["netral", "disinformasi", "fitnah", "ujaran kebencian"]
    )


def test_printed_spellings_are_scored_as_they_are_printed() -> None:
    slot = slot_of(schemas.load("dfk_text_raw"))
    assert slot is not None and slot.written["non_dfk"] == "Non-DFK"
    assert continuations("Label: **Fakta.** penjelasan: x", slot) == (
        "Label: **",
        {label: f"{word}.** penjelasan:" for label, word in slot.written.items()},
    )


def test_a_label_is_looked_for_behind_the_think_block() -> None:
    text = "<think>\nLabel: fitnah\n</think>\n\nLabel: netral\n\nAnalisis: x"
    found = continuations(text, SLOT)
    assert found is not None and found[0] == "<think>\nLabel: fitnah\n</think>\n\nLabel:"
    assert found[1]["fitnah"] == " fitnah\n\nAnalisis:"


def test_an_answer_without_the_marker_has_no_label_place() -> None:
    assert continuations("Saya tidak tahu.", SLOT) is None
    assert continuations("", SLOT) is None


def test_a_schema_without_labels_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    config = config_of(write_rows(tmp_path / "d.jsonl", CAPTION, 2), tmp_path / "none", ["validity"],
                       confidences=True)  # fmt: skip
    with pytest.raises(ConfigError, match="no field with the role Label"):
        evaluate(config, tmp_path / "run")
    assert slot_of(CAPTION) is None


def test_normalising_keeps_ratios_and_gives_nothing_for_nothing() -> None:
    found = normalised({"a": -1000.0, "b": -1000.0 + math.log(3)})
    assert found == pytest.approx({"a": 0.25, "b": 0.75})
    assert normalised({"a": -math.inf, "b": -math.inf}) is None
    assert normalised({"a": math.nan, "b": 0.0}) is None
    assert normalised({}) is None


# --- a local model


@pytest.fixture(scope="module")
def tiny() -> Iterator[loader.Loaded]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield loader.load("tiny", dtype="float32", device="cpu")
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.new("RGB", (96, 64), (200, 30, 30)).save(path)
    return path


def prompt_of(tiny: loader.Loaded, request: Request) -> str:
    return str(
        tiny.processor.apply_chat_template(
            request.messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    )


def slow_scores(tiny: loader.Loaded, request: Request, answer: str) -> dict[str, float]:
    """The definition, word for word: each class alone, every token of the answer, no batch, no cut."""
    import torch

    prompt, scores = prompt_of(tiny, request), {}
    images = [open_image(path) for path in request.images] or None
    begin = tiny.processor(text=[prompt], images=images, return_tensors="pt")["input_ids"].shape[1]
    for label in ("netral", "disinformasi", "fitnah", "ujaran kebencian"):
        upto = answer[: answer.index("Label:")]
        text = f"{prompt}{upto}Label: {label}\n\nAnalisis:"
        inputs = tiny.processor(text=[text], images=images, return_tensors="pt")
        with torch.inference_mode():
            logits = tiny.model(**inputs, use_cache=False).logits[0].double()
        ids = inputs["input_ids"][0].tolist()
        scores[label] = sum(
            float(torch.log_softmax(logits[place - 1], dim=-1)[ids[place]])
            for place in range(begin, len(ids))
        )
    return scores


def slowly(tiny: loader.Loaded, request: Request, answer: str) -> dict[str, float]:
    scores = {label: math.exp(score) for label, score in slow_scores(tiny, request, answer).items()}
    return {label: value / sum(scores.values()) for label, value in scores.items()}


def test_unlikely_classes_too_are_scored_where_they_stand(tiny: loader.Loaded, picture: Path) -> None:
    """Probabilities near 0 hide what log-probabilities show: places behind images and behind padding."""
    from dfkeval.backends._local import label_probabilities

    answer = "Label: netral\n\nAnalisis: x"
    requests = [asked("a"), asked("b", "Konteks: lebih panjang", picture), asked("c", "Judul: x", picture)]
    texts = [asked("d"), asked("e", "Konteks: lebih panjang lagi dari yang lain")]
    for batch in (requests, requests[:1], requests[1:2], texts):
        found = [
            label_probabilities._place(Completion(id=each.id, text=answer), each, prompt_of(tiny, each),
                           tiny.processor.tokenizer)
            for each in batch
        ]  # fmt: skip
        places = [place for place in found if place is not None]
        for request, scores in zip(
            batch, label_probabilities._forward(places, tiny.model, tiny.processor), strict=True
        ):
            slow = slow_scores(tiny, request, answer)
            for label in slow:
                want = slow[label] - slow["netral"]
                assert scores[label] - scores["netral"] == pytest.approx(want, abs=2e-4), (request.id, label)


@pytest.mark.parametrize("batch_tokens", [1, 60_000])
def test_label_probabilities_equal_the_slow_definition_in_any_batch(
    tiny: loader.Loaded, picture: Path, batch_tokens: int
) -> None:
    requests = [
        asked("a"),
        asked("b", "Konteks: lima kata yang lebih panjang", picture),
        asked("c", "Judul: x"),
    ]
    answers = ["Label: netral\n\nAnalisis: x", "Baik.\nLabel: fitnah", "tanpa label"]
    completions = [Completion(id=r.id, text=text) for r, text in zip(requests, answers, strict=True)]
    pairs = [(request, prompt_of(tiny, request)) for request in requests]
    got = list(with_label_probs(completions, pairs, tiny.model, tiny.processor, batch_tokens))
    assert [each.id for each in got] == ["a", "b", "c"]
    assert got[2].label_probs is None
    for each, request, answer in zip(got[:2], requests, answers, strict=False):
        assert each.label_probs is not None
        assert sum(each.label_probs.values()) == pytest.approx(1.0)
        assert each.label_probs == pytest.approx(slowly(tiny, request, answer), abs=1e-5)
        assert max(each.label_probs.values()) < 1.0


def test_generation_adds_them_only_where_they_are_asked_for(tiny: loader.Loaded) -> None:
    """The marker is taken from what the model says anyway, so that its place is found."""
    backend, sampling = Transformers(tiny), Sampling(max_new_tokens=8)
    plain = Request(id="p", messages=asked().messages)
    text = next(iter(backend.generate([plain], sampling))).text
    slot = LabelSlot(marker=text[:3], written={"x": "satu", "y": "dua"}, closing=".")
    wanted = msgspec.structs.replace(plain, id="w", slot=slot)
    found = {each.id: each for each in backend.generate([plain, wanted], sampling)}
    assert found["p"].label_probs is None
    assert set(found["w"].label_probs or {}) == {"x", "y"}
    assert found["w"].text == found["p"].text


def test_text_after_a_batch_with_images_is_placed_as_text(tiny: loader.Loaded, picture: Path) -> None:
    """The model remembers how far the images of its last batch moved the places; a batch without images must
    not be moved by it."""

    def of(request: Request) -> dict[str, float] | None:
        completion = Completion(id=request.id, text="Label: netral\n\nAnalisis: x")
        pairs = [(request, prompt_of(tiny, request))]
        return next(
            iter(with_label_probs([completion], pairs, tiny.model, tiny.processor, 10**6))
        ).label_probs

    before = of(asked("a"))
    assert of(asked("b", "Judul: gambar", picture)) is not None
    assert of(asked("a")) == before


def test_what_all_classes_share_is_read_once(tiny: loader.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[tuple[int, int]] = []
    forward = tiny.model.forward

    def counted(*arguments: Any, **more: Any) -> Any:
        widths.append(tuple(more["input_ids"].shape))  # type: ignore[arg-type]
        return forward(*arguments, **more)

    monkeypatch.setattr(tiny.model, "forward", counted)
    requests = [asked("a", "Judul: a " * 40), asked("b", "Judul: yang lain")]
    completions = [Completion(id=each.id, text="Label: netral") for each in requests]
    pairs = [(each, prompt_of(tiny, each)) for each in requests]
    found = list(with_label_probs(completions, pairs, tiny.model, tiny.processor, 10**6))
    assert all(each.label_probs for each in found)
    (common, rest) = widths
    assert common[0] == 2 and rest[0] == 8  # two prompts; four classes of each
    assert rest[1] < common[1] / 4


def test_what_does_not_fit_into_memory_is_halved_down_to_one_class(
    tiny: loader.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from dfkeval.backends._local import label_probabilities

    forward, sizes, fitting, hopeless = label_probabilities._forward, [], 1, ""

    def small(batch: Any, model: Any, processor: Any) -> Any:
        classes = sum(len(place.tails) for place in batch)
        sizes.append(classes)
        if classes > fitting or batch[0].request.id == hopeless:
            raise torch.OutOfMemoryError("too large")
        return forward(batch, model, processor)

    requests = [asked(name, f"Judul: {name}") for name in "ab"]
    completions = [Completion(id=each.id, text="Label: netral") for each in requests]
    pairs = [(each, prompt_of(tiny, each)) for each in requests]

    def probabilities() -> list[dict[str, float] | None]:
        found = with_label_probs(completions, pairs, tiny.model, tiny.processor, 10**6)
        return [each.label_probs for each in found]

    whole = probabilities()
    monkeypatch.setattr("dfkeval.backends._local.label_probabilities._forward", small)
    pieces = probabilities()
    assert sizes == [8, 4, 2, 1, 1, 2, 1, 1, 4, 2, 1, 1, 2, 1, 1]
    for a, b in zip(whole, pieces, strict=True):
        assert a is not None and b == pytest.approx(a, abs=1e-5)
    hopeless = "a"
    assert [each is None for each in probabilities()] == [True, False]


# --- a server


def step(token: str, **others: float) -> tuple[str, dict[str, float]]:
    """One token, alternatives as probabilities."""
    return token, {name.replace("_", " "): math.log(value) for name, value in others.items()}


def test_alternatives_of_the_deciding_token_give_the_probabilities() -> None:
    steps = [
        step("Label", Label=1.0),
        (":", {":": 0.0}),
        step(" fit", _fit=0.6, _net=0.3, _dis=0.05, _hal=0.04),
        ("nah", {"nah": 0.0}),
    ]
    found = from_alternatives(steps, SLOT)
    total = 0.6 + 0.3 + 0.05
    wanted = {"netral": 0.3, "disinformasi": 0.05, "fitnah": 0.6, "ujaran kebencian": 0.0}
    assert found == pytest.approx({name: value / total for name, value in wanted.items()})


def test_a_first_token_that_several_labels_share_is_followed() -> None:
    slot = LabelSlot(marker="L:", written={"a": "non dfk", "b": "non fakta", "c": "fitnah"}, closing="\n")
    steps = [("L:", {"L:": 0.0}), step("non", non=0.8, fit=0.2), step(" dfk", _dfk=0.25, _fak=0.75)]
    assert from_alternatives(steps, slot) == pytest.approx({"a": 0.2, "b": 0.6, "c": 0.2})


def test_a_token_that_joins_marker_and_label_is_cut_at_the_marker() -> None:
    slot = LabelSlot(marker="L:", written={"a": "ya", "b": "bukan"}, closing="\n")
    steps = [("L", {"L": 0.0}), (":ya", {":ya": math.log(0.9), ":bu": math.log(0.1), "-x": -9.0})]
    assert from_alternatives(steps, slot) == pytest.approx({"a": 0.9, "b": 0.1})


def test_a_server_that_shows_no_class_gives_none() -> None:
    assert from_alternatives([("Label:", {"Label:": 0.0}), step(" zzz", _zzz=1.0)], SLOT) is None
    assert from_alternatives([("nothing", {"nothing": 0.0})], SLOT) is None
    assert from_alternatives([], SLOT) is None


def test_the_server_is_asked_for_logprobs_only_with_a_slot() -> None:
    wanted = body(asked(), Sampling(), "m")
    assert (wanted["logprobs"], wanted["top_logprobs"]) == (True, 20)
    plain = body(msgspec.structs.replace(asked(), slot=None), Sampling(), "m")
    assert "logprobs" not in plain and "top_logprobs" not in plain


@pytest.mark.parametrize(
    "content", [None, [], 3, [{"token": "L"}], [3], ["x"], [{"token": "x", "logprob": "high"}]]
)
def test_logprobs_of_another_shape_are_no_probabilities_and_no_crash(content: Any) -> None:
    answer = {"choices": [{"message": {}, "logprobs": {"content": content}}]}
    assert label_probs(answer, asked()) is None


def test_a_server_s_logprobs_arrive_as_probabilities() -> None:
    content = [
        {"token": "Label:", "logprob": 0.0, "top_logprobs": []},
        {"token": " fitnah", "logprob": math.log(0.75),
         "top_logprobs": [{"token": " netral", "logprob": math.log(0.25)}]},
    ]  # fmt: skip
    found = label_probs({"choices": [{"message": {}, "logprobs": {"content": content}}]}, asked())
    assert found is not None and found["fitnah"] == pytest.approx(0.75)


# --- through an evaluation


class Sure:
    """A backend that answers gold with 0.7 on its label where it is asked how sure it is."""

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in requests:
            gold = dfk_gold(int(request.id[1:]))
            probs = {name: 0.7 if name == gold["label"] else 0.1 for name in SLOT.written}
            yield Completion(
                id=request.id,
                text=answer_text(gold, DFK),
                label_probs=probs if request.slot == SLOT else None,
            )

    def close(self) -> None: ...


@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_keeps_label_probabilities_in_its_samples(tmp_path: Path, wanted: bool) -> None:
    data = write_rows(tmp_path / "d.jsonl", DFK, 4)
    config = config_of(data, tmp_path / "none.jsonl", ["validity"], confidences=wanted)
    run = evaluate(config, tmp_path / "run", backend=Sure())
    confidence = 0.7 if wanted else None
    assert [each.confidence for each in run.samples] == [confidence] * 4
    assert [each.confidence for each in load_run(tmp_path / "run").samples] == [confidence] * 4
    assert [each.confidence for each in score(tmp_path / "run").samples] == [confidence] * 4
    line = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[1])
    assert line["label"] == "disinformasi" and bool(line["label_probs"]) is wanted


def test_the_confidence_is_that_of_the_label_that_was_answered(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", DFK, 2)
    lines = write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 2)).read_text().splitlines()
    first = json.loads(lines[0]) | {"label_probs": {"netral": 0.2, "fitnah": 0.8}}
    second = json.loads(lines[1]) | {"text": "no label here", "label_probs": {"netral": 0.2, "fitnah": 0.8}}
    (tmp_path / "a.jsonl").write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    run = evaluate(config_of(data, tmp_path / "a.jsonl", ["validity"], confidences=True), tmp_path / "run")
    assert [each.confidence for each in run.samples] == [0.2, None]


def test_only_a_schema_with_labels_can_be_asked() -> None:
    plain = Request(id="x", messages=[])
    assert with_slot(plain, DFK).slot == SLOT
    with pytest.raises(ConfigError):
        with_slot(plain, CAPTION)
