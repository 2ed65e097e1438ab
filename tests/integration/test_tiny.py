"""The built-in model is what its card says, and its tasks are not the demo."""

from __future__ import annotations

import inspect
import json
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from dfkdata.schemas import caption, dfk_label, load
from dfktrain import tiny
from dfktrain.demo import run as demo
from dfktrain.demo import words
from tools.tiny_model import build, shape, tasks, train

ROWS = 300


@pytest.fixture(scope="module")
def loaded():
    return tiny.load()


@pytest.fixture(scope="module")
def task_texts() -> list[str]:
    tasks.use_pieces(json.loads((tiny.path() / "tokenizer.json").read_text())["model"]["vocab"])
    rng = random.Random(5)
    return [build._rendered(task(rng)) for task in tasks.TASKS.values() for _ in range(ROWS)]


def test_it_is_a_hybrid_vision_language_model_with_a_tied_head(loaded) -> None:
    model, _ = loaded
    config = model.config
    assert config.model_type == "qwen3_5"
    assert set(config.text_config.layer_types) == {"linear_attention", "full_attention"}
    assert config.vision_config.depth >= 1
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_it_has_at_most_six_million_parameters_and_twelve_megabytes_of_bf16(loaded) -> None:
    from safetensors import safe_open

    model, _ = loaded
    file = tiny.path() / "model.safetensors"
    with safe_open(file, "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118 (no mapping)
    assert sum(weight.numel() for weight in model.parameters()) <= 6_000_000
    assert file.stat().st_size <= 12_000_000


def test_every_added_token_is_one_token_and_ids_stand_in_the_released_order(loaded) -> None:
    _, processor = loaded
    texts = [text for text, _ in shape.ADDED_TOKENS]
    ids = processor.tokenizer.convert_tokens_to_ids(texts)
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert all(
        processor.tokenizer(text)["input_ids"] == [each] for text, each in zip(texts, ids, strict=True)
    )


@pytest.mark.parametrize("word", sorted(words.ALL))
def test_a_word_has_the_same_tokens_in_a_sentence_as_in_json(loaded, word: str) -> None:
    tokenize = loaded[1].tokenizer.tokenize
    quoted = tokenize(f'["{word}"]')
    spoken = tokenize(f"a {word}")
    bare = tokenize(word)
    assert quoted[1:-1] == bare
    assert spoken[-len(bare) :] == bare


def test_any_text_survives_the_tokenizer(loaded) -> None:
    tokenizer = loaded[1].tokenizer
    for text in ("Label: fitnah\n\nAnalisis: é 漢字 🙂\t\r\n", "<parameter=a>\n\n</parameter>", "\x00\x7f"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_picture_takes_at_most_nine_tokens(loaded) -> None:
    from PIL import Image

    _, processor = loaded
    for size in ((64, 64), (96, 96), (192, 192), (1080, 1920), (500, 300)):
        grid = processor.image_processor([Image.new("RGB", size)], return_tensors="pt")["image_grid_thw"][0]
        assert int(grid.prod()) // shape.MERGE**2 <= 9


def test_the_tasks_never_show_the_demos_tasks(task_texts: list[str]) -> None:
    forbidden = (
        "emit_caption_schema",
        "Label:",
        "Analisis:",
        dfk_label.INSTRUCTION[:40],
        caption.SYSTEM[:40],
    )
    assert not [text for text in task_texts if any(each in text for each in forbidden)]
    own = json.dumps(load("caption").json_schema["properties"])
    assert not [text for text in task_texts if own in text]


def test_the_tasks_never_show_the_demos_words(task_texts: list[str]) -> None:
    shown = {word for text in task_texts for word in re.findall(r"[a-z]+", text.lower())}
    assert not shown & words.ALL


def test_a_made_up_word_that_is_the_demos_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["cow", "Toy", "lumo"])
    monkeypatch.setattr(tasks, "_made_up", lambda rng: next(drawn))
    assert tasks.word(random.Random(0)) == "lumo"


def test_a_made_up_verb_that_is_the_demos_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["climb", "leav", "lum"])
    monkeypatch.setattr(tasks, "_made_up", lambda rng: next(drawn))
    assert tasks._verb(random.Random(0)) == "luming"


def test_no_piece_that_words_are_made_of_is_the_demos() -> None:
    tasks.use_pieces(json.loads((tiny.path() / "tokenizer.json").read_text())["model"]["vocab"])
    assert len(tasks.PIECES) > 1000
    assert not set(tasks.PIECES) & words.ALL


def test_the_tasks_draw_no_letters_and_use_other_seeds_than_the_demo() -> None:
    source = inspect.getsource(tasks)
    assert "ImageFont" not in source
    assert ".text(" not in source
    recipe = {inspect.signature(build.tokenizer).parameters["seed"].default, train._options([]).seed}
    assert demo.SEED not in recipe


def test_tasks_repeat_for_a_seed_and_differ_between_seeds() -> None:
    for task in tasks.TASKS.values():
        one, same, other = (task(random.Random(seed)) for seed in (1, 1, 2))
        assert one["messages"] == same["messages"] != other["messages"]


def test_the_recipe_runs_and_saves_a_loadable_folder(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    train.main(["--trial", "--start", str(tiny.path()), "--out", str(tmp_path)])
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16)
    start = AutoModelForImageTextToText.from_pretrained(tiny.path(), dtype=torch.bfloat16)
    weights = [each.model.language_model.layers[0].mlp.up_proj.weight for each in (start, trained)]
    assert not torch.equal(*weights)
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / name).read_text() == (tiny.path() / name).read_text()


def test_the_tokenizer_recipe_gives_the_qwen_specials_after_the_merges() -> None:
    made = build.tokenizer(rows=40)
    ids = made.convert_tokens_to_ids([text for text, _ in shape.ADDED_TOKENS])
    assert ids == list(range(len(made) - len(ids), len(made)))
    assert made.tokenize("glove") == made.tokenize('"glove"')[1:-1]
