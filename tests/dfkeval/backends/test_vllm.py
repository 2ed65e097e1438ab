"""The vLLM backend against a stand-in with vLLM's documented names; no vLLM is needed, and none is proved."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dfkeval
from dfkdata.common.errors import BackendError, ConfigError
from dfkdata.common.hashing import folder_sha256
from dfkdata.media.images import open_image
from dfkeval.backends import vllm
from dfkeval.backends._local.prompts import fitted_size, resized_sha256
from dfkeval.backends.transformers import Transformers
from dfkeval.evaluation import constraints
from dfkeval.models import loader
from dfkeval.models.processor import load_processor
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Constraint, Request, Sampling
from tests.helpers.places import FAKES
from tests.helpers.runs import CAPTION, DFK, write_rows

torch = pytest.importorskip("torch")
FAKE = FAKES / "fake_vllm"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, importable as `vllm`; echoing unless told otherwise."""
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("FAKE_VLLM", "echo")
    import vllm as module

    module.STARTED.clear()
    yield module
    for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
        del sys.modules[name]


def asked(index: int, **more: Any) -> Request:
    parts: list[dict[str, Any]] = [{"type": "image"} for _ in more.get("images", ())]
    parts.append({"type": "text", "text": f"kata nomor {index}"})
    return Request(**({"id": f"r{index}", "messages": [{"role": "user", "content": parts}]} | more))


def started(**more: Any) -> Any:
    return vllm.start(vllm.Config(**({"model": "tiny", "max_model_len": 900} | more)))


def facts(completion: Completion) -> dict[str, Any]:
    return dict(json.loads(completion.text))


def picture(folder: Path, width: int, height: int) -> str:
    from PIL import Image

    path = folder / f"{width}x{height}.png"
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    image.save(path)
    return str(path)


def test_without_vllm_the_extra_is_named(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    config = EvalConfig.model_validate({"data": data, "backend": {"kind": "vllm", "model": "tiny"}})
    with pytest.raises(ConfigError, match=r'backend "vllm" needs vllm: pip install "dfk\[vllm\]"'):
        dfkeval.evaluate(config, tmp_path / "run")


def test_what_it_answers_equals_the_transformers_backend(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "real")
    large = picture(tmp_path, 300, 120)
    requests = [asked(0), asked(1, images=(large,)), asked(2, images=(picture(tmp_path, 20, 30), large))]
    sampling = Sampling(max_new_tokens=12, stop=("a ", "</tool_call>"))
    loaded = loader.load("tiny", dtype="float32", device="cpu")
    wanted = {each.id: each for each in Transformers(loaded).generate(requests, sampling)}
    got = {each.id: each for each in started(dtype="float32").generate(requests, sampling)}
    for name, each in wanted.items():
        assert (got[name].text, got[name].finish_reason) == (each.text, each.finish_reason)
        assert got[name].n_prompt_tokens == each.n_prompt_tokens


@pytest.mark.parametrize("size", [(300, 120), (20, 30), (33, 64), (96, 96)])
def test_a_fitted_picture_is_what_the_processor_itself_makes_of_it(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    from PIL import Image

    processor = load_processor("tiny")
    image = open_image(picture(tmp_path, *size))
    ours = image.resize(fitted_size(processor, image), Image.Resampling.BICUBIC)
    assert fitted_size(processor, ours) == ours.size
    assert resized_sha256(processor, [ours]) == resized_sha256(processor, [image])


def test_settings_and_the_seed_of_each_row_arrive(fake: Any) -> None:
    sampling = Sampling(max_new_tokens=7, temperature=0.5, top_k=3, seed=4, stop=("x",))
    backend = started()
    found = {each.id: each for each in backend.generate([asked(0), asked(1), asked(0, id="b")], sampling)}
    said = facts(found["r0"])
    assert (said["temperature"], said["max_tokens"], said["stop"]) == (0.5, 7, ["x"])
    assert facts(found["b"])["seed"] == said["seed"] != facts(found["r1"])["seed"]
    again = {each.id: each for each in backend.generate([asked(1), asked(0, draw_index=1)], sampling)}
    assert facts(again["r1"])["seed"] == facts(found["r1"])["seed"]
    assert facts(again["r0"])["seed"] != said["seed"]
    assert found["r0"].text.endswith("}") and found["r0"].finish_reason == "stop"
    assert (found["r0"].n_output_tokens, found["r0"].first_token_seconds) == (3, 0.5)
    assert fake.STARTED[0]["length"] == 900


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (Constraint(kind="grammar", text="root ::= a"), {"grammar": "root ::= a"}),
        (Constraint(kind="structural_tag", text="{}"), {"structural_tag": "{}"}),
        (Constraint(kind="json_schema", text="{}"), {"json": "{}"}),
        (Constraint(kind="json_object"), {"json_object": True}),
    ],
)
def test_constraints_are_structured_outputs(fake: Any, wanted: Constraint, sent: dict[str, Any]) -> None:
    found = next(iter(started().generate([asked(0, constraint=wanted)], Sampling())))
    assert facts(found)["structured"] == sent


def test_a_constrained_run_goes_through_an_evaluation(fake: Any, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    fields = {"data": data, "backend": {"kind": "vllm", "model": "tiny"}, "modes": ["constrained"]}
    run = dfkeval.evaluate(EvalConfig.model_validate(fields | {"resamples": 200}), tmp_path / "run")
    wanted = constraints.constraint(DFK, "constrained")
    assert wanted is not None
    assert json.loads(run.samples[0].text)["structured"] == {"grammar": wanted.text}
    assert run.environment["backend"]["vllm"] == "0.33.0"


def test_reasoning_is_a_request_of_its_own_and_the_answer_continues_it(fake: Any) -> None:
    backend = started()
    parts = [{"type": "text", "text": "CLOSES"}]
    closes = Request(
        id="c", messages=[{"role": "user", "content": parts}], constraint=Constraint(kind="json_object")
    )
    sampling = Sampling(max_new_tokens=7, thinking=True, thinking_budget=5)
    found = {each.id: each for each in backend.generate([closes, asked(1)], sampling)}
    assert (found["c"].reasoning, found["c"].thinking_cut, found["c"].unclosed_think) == ("hm ", False, False)
    said = facts(found["c"])
    assert said["tail"].endswith("<think>\nhm </think>\n\n") and said["structured"] == {"json_object": True}
    assert (found["r1"].reasoning, found["r1"].thinking_cut) == ("hm hm\n", True)
    assert facts(found["r1"])["max_tokens"] == 7 and found["r1"].n_output_tokens == 8
    free = Sampling(max_new_tokens=9, thinking=True)
    found = {each.id: each for each in backend.generate([closes, asked(1)], free)}
    assert facts(found["c"])["max_tokens"] == 9 - 5
    assert (found["r1"].unclosed_think, found["r1"].text, found["r1"].finish_reason) == (True, "", "length")


def test_what_cannot_be_asked_is_a_failed_request(fake: Any, tmp_path: Path) -> None:
    lost = asked(1, images=(str(tmp_path / "gone.png"),))
    slim = asked(2, images=(picture(tmp_path, 900, 4),))
    found = {
        each.id: each for each in started().generate([asked(0), lost, slim], Sampling(max_new_tokens=700))
    }
    assert "gone.png" in str(found["r1"].error) and "too slim" in str(found["r2"].error)
    found = {each.id: each for each in started().generate([asked(0)], Sampling(max_new_tokens=899))}
    assert "above max_model_len 900" in str(found["r0"].error)


def test_a_request_whose_time_is_up_before_its_chunk_is_not_asked(fake: Any) -> None:
    backend = started(chunk=1)
    answers = backend.generate([asked(0), asked(1, deadline=time.monotonic() - 1)], Sampling())
    found = {each.id: each for each in answers}
    assert found["r1"].timed_out and not found["r1"].text and facts(found["r0"])


def test_several_engines_share_the_rows_on_gpus_of_their_own(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    backend = started(data_parallel=2, tensor_parallel=2)
    try:
        found = list(backend.generate([asked(index) for index in range(24)], Sampling(max_new_tokens=5)))
    finally:
        backend.close()
    assert sorted(each.id for each in found) == sorted(f"r{index}" for index in range(24))
    assert {facts(each)["device"] for each in found} <= {"4,5", "6,7"}
    assert all(process.exitcode == 0 for process in backend.workers.processes)


def test_a_worker_that_cannot_start_is_an_error_that_names_its_gpu(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("FAKE_VLLM_FAILS", "1")
    backend = started(data_parallel=2)
    try:
        with pytest.raises(BackendError, match=r"worker on GPU [01]: vllm cannot start .* no memory left"):
            list(backend.generate([asked(0), asked(1)], Sampling()))
    finally:
        backend.close()


def test_fewer_gpus_than_engines_are_said_before_any_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(ConfigError, match="needs 4 GPUs, and CUDA_VISIBLE_DEVICES shows 3"):
        vllm.devices(2, 2)
    assert vllm.devices(3, 1) == ["0", "1", "2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert vllm.devices(2, 2) == ["0,1", "2,3"]


def make_adapter(folder: Path, modules: list[str]) -> Path:
    peft = pytest.importorskip("peft")
    net = loader.load("tiny", dtype="float32", device="cpu").model
    adapted = peft.get_peft_model(net, peft.LoraConfig(r=4, target_modules=modules))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.1)
    adapted.save_pretrained(folder)
    return folder


def test_an_adapter_that_vllm_serves_is_handed_over(fake: Any, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", ["q_proj", "down_proj"])
    backend = started(adapter=folder)
    found = next(iter(backend.generate([asked(0)], Sampling())))
    assert facts(found)["lora"] == ["adapter", 1, str(folder)]
    assert (fake.STARTED[0]["enable_lora"], fake.STARTED[0]["rank"]) == (True, 8)
    assert backend.info["adapter_effect"].startswith(
        "the adapter changes 1 of 1 probed rows against the base"
    )
    assert backend.identity.adapter_sha256 == folder_sha256(folder)


@pytest.mark.parametrize(
    ("version", "layer"),
    [
        ("0.31.1", "in_proj_qkv"), ("0.20.0", "in_proj_a"), ("dev", "linear_attn.out_proj"),
        ("0.31.1", "visual.blocks.0.attn.qkv"), ("0.32.0", "visual.blocks.0.attn.qkv"),
    ],
)  # fmt: skip
def test_an_adapter_with_layers_that_vllm_leaves_out_is_refused_with_merge_first(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, layer: str
) -> None:
    monkeypatch.setattr(fake, "__version__", version)
    folder = make_adapter(tmp_path / "a", ["q_proj", layer])
    with pytest.raises(ConfigError, match="merge first"):
        started(adapter=folder)
    assert fake.STARTED == []


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0+cpu"])
def test_an_adapter_of_gated_deltanet_projections_is_handed_to_a_vllm_that_serves_it(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(fake, "__version__", version)
    started(adapter=make_adapter(tmp_path / "a", ["in_proj_qkv", "linear_attn.out_proj"]))
    assert fake.STARTED[0]["enable_lora"]


def test_an_adapter_of_another_base_is_refused_by_its_shapes(fake: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_adapter(tmp_path / "a", ["q_proj"])
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    key = min(tensors)
    save_file(tensors | {key: torch.zeros(4, 7)}, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 keys, for example .*lora_A.weight \(7 where the layer has"):
        started(adapter=folder)
    save_file({key.replace("language_model.", ""): tensors[key]}, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="no such layer"):
        started(adapter=folder)


def test_the_outline_of_a_model_has_the_shapes_of_the_loaded_one() -> None:
    whole = loader.load("tiny", dtype="float32", device="cpu")
    outline = loader.outline("tiny")
    for name in ("shapes_sha256", "weights_sha256", "template_sha256", "pixels"):
        assert outline.info[name] == whole.info[name], name


def test_a_call_of_the_caption_tool_is_rendered_as_the_transformers_backend_renders_it(fake: Any) -> None:
    request = asked(0, tools=CAPTION.tools)
    shown = started().fingerprint(request, Sampling())
    loaded = loader.load("tiny", dtype="float32", device="cpu")
    assert shown == Transformers(loaded).fingerprint(request, Sampling())
