"""The transformers backend on the built-in tiny model: answers depend on the prompt alone, and every adapter
is proved before it is used."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkdata.common.hashing import folder_sha256
from dfkdata.media.images import open_image
from dfkeval.backends._local.generate import Generator
from dfkeval.backends._local.prompts import RenderedPrompt
from dfkeval.backends.transformers import Transformers
from dfkeval.models import fingerprint, loader, metadata
from dfkeval.models import tiny as tiny_model
from dfkeval.models.fingerprint import template_sha256
from dfkeval.models.processor import load_processor
from dfkeval.types import Completion, Request, Sampling

torch = pytest.importorskip("torch")
SHORT = Sampling(max_new_tokens=8)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    """32 prompts of many lengths, every third with a picture."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        image = Image.new("RGB", (40 + 24 * index, 60), (70 * index, 200 - 50 * index, 90))
        image.save(folder / f"{index}.png")
    return [asked(index, folder / f"{index % 4}.png" if index % 3 == 0 and index % 4 < 3 else None)
            for index in range(32)]  # fmt: skip


def asked(index: int, image: Path | None = None, words: int | None = None) -> Request:
    count = 1 + (7 * index) % 23 if words is None else words
    parts: list[dict[str, Any]] = [{"type": "image"}] if image else []
    parts.append({"type": "text", "text": f"kata nomor {index} " * count})
    messages = [{"role": "user", "content": parts}]
    return Request(id=f"r{index}", messages=messages, images=(str(image),) if image else ())


def answers(
    loaded: loader.Loaded, requests: list[Request], sampling: Sampling = SHORT, **how: Any
) -> dict[str, Completion]:
    found = list(Transformers(loaded, **how).generate(requests, sampling))
    assert len(found) == len(requests)
    return {completion.id: completion for completion in found}


def texts(completions: dict[str, Completion]) -> dict[str, tuple[str, str, int | None, int | None]]:
    return {
        name: (each.text, each.finish_reason, each.n_prompt_tokens, each.n_output_tokens)
        for name, each in completions.items()
    }


@pytest.fixture(scope="module")
def in_eights(tiny: loader.Loaded, requests: list[Request]) -> dict[str, Completion]:
    return answers(tiny, requests, batch_size=8)


@pytest.mark.parametrize("size", [1, 32])
def test_answers_do_not_depend_on_the_batch_size(
    tiny: loader.Loaded, requests: list[Request], in_eights: dict[str, Completion], size: int
) -> None:
    assert texts(answers(tiny, requests, batch_size=size)) == texts(in_eights)
    assert len({each.text for each in in_eights.values()}) > 3  # the prompts do lead to different answers


def test_answers_do_not_depend_on_order_or_token_budget(
    tiny: loader.Loaded, requests: list[Request], in_eights: dict[str, Completion]
) -> None:
    shuffled = random.Random(5).sample(requests, len(requests))
    assert texts(answers(tiny, shuffled, batch_tokens=900)) == texts(in_eights)


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_answers_stay_the_same(
    tiny: loader.Loaded,
    requests: list[Request],
    in_eights: dict[str, Completion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate, sizes = tiny.model.generate, []

    def small_memory(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("too large")
        return generate(**inputs)

    monkeypatch.setattr(tiny.model, "generate", small_memory)
    got = answers(tiny, requests[:8], batch_size=8, batching="static")
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert texts(got) == {name: value for name, value in texts(in_eights).items() if name in got}


def test_batches_after_one_that_did_not_fit_are_smaller(
    tiny: loader.Loaded,
    requests: list[Request],
    in_eights: dict[str, Completion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate, sizes = tiny.model.generate, []

    def small_memory(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("too large")
        return generate(**inputs)

    monkeypatch.setattr(tiny.model, "generate", small_memory)
    backend = Transformers(tiny, batch_size=8, batching="static")
    got = {each.id: each for each in backend.generate([asked(index, words=5) for index in range(40)], SHORT)}
    assert len(got) == 40 and {each.finish_reason for each in got.values()} <= {"stop", "length"}
    assert sizes.count(8) <= 2  # the one that failed, and the one that was prepared meanwhile
    assert backend.info["batch_tokens_after_out_of_memory"] == backend.batch_tokens < 32_768


def test_one_prompt_that_does_not_fit_into_memory_is_a_failed_request(
    tiny: loader.Loaded, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(**inputs: Any) -> Any:
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(tiny.model, "generate", no_memory)
    for completion in answers(tiny, requests[:3], batching="static").values():
        assert (completion.text, completion.finish_reason) == ("", "error")
        assert "out of memory" in (completion.error or "")


def test_the_token_limit_gives_finish_reason_length(tiny: loader.Loaded, requests: list[Request]) -> None:
    got = answers(tiny, requests[:4], Sampling(max_new_tokens=3))
    assert {each.finish_reason for each in got.values()} == {"length"}
    assert {each.n_output_tokens for each in got.values()} == {3}


def test_an_answer_ends_with_its_stop_string_which_is_kept(tiny: loader.Loaded) -> None:
    request = asked(1)
    whole = answers(tiny, [request], Sampling(max_new_tokens=12))["r1"].text
    stop = whole[2:7]
    assert len(tiny.processor.tokenizer.encode(stop)) > 1
    got = answers(tiny, [request], Sampling(max_new_tokens=12, stop=(stop,)))["r1"]
    assert got.text == whole[: whole.index(stop) + len(stop)]
    assert got.finish_reason == "stop"


def test_a_stop_string_of_one_token_is_kept_and_the_end_of_turn_token_is_not(tiny: loader.Loaded) -> None:
    generator, tokenizer = Generator(tiny.model, tiny.processor), tiny.processor.tokenizer
    prompt = RenderedPrompt(asked(1), "kata", 5)
    end, close = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("</tool_call>")
    word, pad = tokenizer.encode("kata"), tokenizer.pad_token_id
    closing = Sampling(stop=("</tool_call>",))
    called = generator.completion(prompt, "r1", [*word, close, pad, pad], 5, closing, (0.1, None))
    assert (called.text, called.finish_reason) == ("kata</tool_call>", "stop")
    assert called.n_output_tokens == len(word) + 1
    ended = generator.completion(prompt, "r1", [*word, end, pad, pad], 5, closing, (0.1, None))
    assert (ended.text, ended.finish_reason, ended.n_output_tokens) == ("kata", "stop", len(word) + 1)


def test_a_missing_image_is_a_failed_request_and_not_an_answer(
    tiny: loader.Loaded, requests: list[Request], in_eights: dict[str, Completion], tmp_path: Path
) -> None:
    lost = asked(99, tmp_path / "gone.png")
    got = answers(tiny, [requests[0], lost, requests[1]])
    assert (got["r99"].text, got["r99"].finish_reason) == ("", "error")
    assert "gone.png" in (got["r99"].error or "")
    assert got["r0"].text == in_eights["r0"].text
    assert got["r1"].text == in_eights["r1"].text


def test_drawn_answers_repeat_with_their_seed(tiny: loader.Loaded, requests: list[Request]) -> None:
    def drawn(seed: int) -> dict[str, str]:
        sampling = Sampling(max_new_tokens=8, temperature=3.0, seed=seed)
        return {name: each.text for name, each in answers(tiny, requests[:4], sampling).items()}

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_the_record_says_what_was_run(tiny: loader.Loaded) -> None:
    info = Transformers(tiny).info
    assert (info["kind"], info["dtype"], info["device"]) == ("transformers", "float32", "cpu")
    assert info["weights_sha256"] == folder_sha256(tiny_model.path())
    assert info["template_sha256"] == template_sha256(tiny.processor)
    assert info["pixels"]["longest_edge"] > 0
    assert info["attention"] == "sdpa"
    assert set(info["kernels"]) == {
        "chunk_gated_delta_rule", "recurrent_gated_delta_rule", "causal_conv1d_fn", "causal_conv1d_update",
    }  # fmt: skip
    # packing, which other tests of the same process try, binds a convolution of its own
    assert set(info["kernels"].values()) <= {"torch", "dfktrain"}


def test_the_kernel_path_names_the_package_that_was_bound(
    tiny: loader.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    layer = next(each for each in tiny.model.modules() if type(each).__name__.endswith("GatedDeltaNet"))
    module = sys.modules[type(layer).__module__]

    def bind(implementation: Any) -> Any:
        def wrapped(*inputs: Any) -> Any:
            return implementation(*inputs)

        return wrapped

    def fast(*inputs: Any) -> Any: ...

    fast.__module__ = "fla.ops.gated_delta_rule.chunk"
    monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", bind(fast))
    assert fingerprint.kernels(tiny.model)["chunk_gated_delta_rule"] == "fla"


def test_max_pixels_bounds_the_image_on_this_processor_alone(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "large.png"
    Image.new("RGB", (640, 640), "red").save(path)
    small = load_processor("tiny", max_pixels=64 * 64)
    plain = load_processor("tiny")
    grids = [
        processor(text=["<|vision_start|><|image_pad|><|vision_end|>"], images=[[open_image(path)]],
                  return_tensors="pt")["image_grid_thw"].prod().item()
        for processor in (small, plain)
    ]  # fmt: skip
    side = small.image_processor.patch_size
    assert grids[0] * side * side <= 64 * 64 < grids[1] * side * side


@pytest.fixture
def make_adapter(tmp_path: Path) -> Any:
    """make_adapter(trained) -> folder of a LoRA adapter of the tiny model, B matrices zero or not."""
    peft = pytest.importorskip("peft")

    def make(trained: bool = True) -> Path:
        net = loader.load("tiny", dtype="float32", device="cpu").model
        adapted = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
        if trained:
            generator = torch.Generator().manual_seed(1)
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.data.normal_(0.0, 0.5, generator=generator)
        folder = tmp_path / "adapter"
        adapted.save_pretrained(folder)
        return folder

    return make


def rewrite(folder: Path, change: Any) -> None:
    """Apply `change` to the dict of the adapter's tensors."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def load_adapter(folder: Path) -> loader.Loaded:
    return loader.load("tiny", adapter=folder, dtype="float32", device="cpu")


def test_a_trained_adapter_loads_and_changes_the_answers(
    make_adapter: Any, requests: list[Request], in_eights: dict[str, Completion]
) -> None:
    folder = make_adapter()
    loaded = load_adapter(folder)
    assert loaded.info["adapter_sha256"] == folder_sha256(folder)
    got = answers(loaded, requests[:4])
    assert {name: each.text for name, each in got.items()} != {name: in_eights[name].text for name in got}


def test_an_adapter_without_effect_is_refused(make_adapter: Any) -> None:
    with pytest.raises(ConfigError, match="does not change the model's logits"):
        load_adapter(make_adapter(trained=False))


def test_an_adapter_with_a_foreign_key_is_refused(make_adapter: Any) -> None:
    folder = make_adapter()
    foreign = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    rewrite(folder, lambda tensors: tensors.update({foreign: torch.ones(2, 4)}))
    with pytest.raises(ConfigError, match="1 keys of the file have no place in the model"):
        load_adapter(folder)


def test_an_adapter_that_lacks_a_key_is_refused(make_adapter: Any) -> None:
    folder = make_adapter()
    rewrite(folder, lambda tensors: tensors.pop(min(tensors)))
    with pytest.raises(ConfigError, match="1 places got no key"):
        load_adapter(folder)


def test_an_adapter_of_another_base_is_refused_by_its_card(make_adapter: Any) -> None:
    folder = make_adapter()
    metadata.write(
        folder, metadata.ModelMetadata(base=metadata.BaseRecord(name="someone/other", shapes_sha256="0" * 64))
    )
    with pytest.raises(ConfigError, match=r"another base model \('someone/other'\)"):
        load_adapter(folder)


def test_an_adapter_trained_with_another_template_is_refused_by_its_card(make_adapter: Any) -> None:
    folder = make_adapter()
    metadata.write(folder, metadata.ModelMetadata(template_sha256="0" * 64))
    with pytest.raises(ConfigError, match=r"template_sha256 was .* in training"):
        load_adapter(folder)


def test_the_card_of_an_adapter_sets_the_pixels_and_another_number_is_refused(make_adapter: Any) -> None:
    folder = make_adapter()
    metadata.write(folder, metadata.ModelMetadata(max_pixels=4096))
    assert load_adapter(folder).info["pixels"]["longest_edge"] == 4096
    with pytest.raises(ConfigError, match="max_pixels was 4096 in training and is 8192 here"):
        loader.load("tiny", adapter=folder, max_pixels=8192, dtype="float32", device="cpu")


def test_what_cannot_be_loaded_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        loader.load("./nowhere")
    with pytest.raises(ConfigError, match=r"no adapter_config\.json there"):
        loader.load("tiny", adapter=tmp_path)
    with pytest.raises(ConfigError, match="dtype 'int3'"):
        loader.load("tiny", dtype="int3")
    with pytest.raises(BackendError, match="cannot be loaded"):
        loader.load(tmp_path)
    (tmp_path / metadata.NAME).write_text('{"format": "new"}')
    with pytest.raises(DataError, match="not a model card"):
        metadata.read(tmp_path)
