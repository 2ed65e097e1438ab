"""A stand-in for vLLM with the names and arguments that its documentation gives, and nothing else: an
argument that vLLM does not have is a TypeError here too.

It answers with a transformers model, greedily, so that prompts, pictures, stops and ends can be compared with
the transformers backend; with FAKE_VLLM=echo it repeats what it was given, without a model."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from vllm.sampling_params import SamplingParams as SamplingParams

__version__ = "0.33.0"
STARTED: list[dict[str, Any]] = []


@dataclass
class _Made:
    text: str
    token_ids: list[int]
    finish_reason: str
    stop_reason: str | int | None = None


class LLM:
    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        limit_mm_per_prompt: dict[str, int] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
        enable_lora: bool = False,
        max_lora_rank: int = 16,
        enforce_eager: bool = False,
    ) -> None:
        if os.environ.get("FAKE_VLLM_FAILS"):
            raise RuntimeError("no memory left")
        if max_lora_rank not in (1, 8, 16, 32, 64, 128, 256, 320, 512):
            raise ValueError("max_lora_rank: Input should be 1, 8, 16, 32, 64, 128, 256, 320 or 512")
        STARTED.append({"model": model, "dtype": dtype, "enable_lora": enable_lora, "rank": max_lora_rank,
                        "images": limit_mm_per_prompt, "length": max_model_len, "eager": enforce_eager})  # fmt: skip
        self.source, self.loaded = model, None

    def generate(
        self,
        prompts: list[dict[str, Any]],
        sampling_params: list[SamplingParams],
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
    ) -> list[Any]:
        assert len(prompts) == len(sampling_params)
        pairs = zip(prompts, sampling_params, strict=True)
        return [self._output(prompt, params, lora_request) for prompt, params in pairs]

    def _output(self, prompt: dict[str, Any], params: SamplingParams, lora: Any) -> Any:
        assert prompt.keys() <= {"prompt", "multi_modal_data"}
        images = prompt.get("multi_modal_data", {}).get("image", [])
        echo = os.environ.get("FAKE_VLLM") == "echo"
        made, count = (_echo if echo else self._real)(prompt["prompt"], images, params, lora)
        metrics = SimpleNamespace(first_token_latency=0.5)
        return SimpleNamespace(outputs=[made], prompt_token_ids=[0] * count, metrics=metrics)

    def _real(self, text: str, images: list[Any], params: SamplingParams, lora: Any) -> tuple[_Made, int]:
        """As vLLM does: the ending token's text is kept when stop strings are to be kept."""
        import torch

        from dfkeval.models import loader

        if self.loaded is None:
            path = None if lora is None else lora.lora_path
            self.loaded = loader.load(self.source, adapter=path, dtype="float32", device="cpu")
        processor, model = self.loaded.processor, self.loaded.model
        inputs = processor(text=[text], images=[images] if images else None, return_tensors="pt")
        end = processor.tokenizer.eos_token_id
        with torch.inference_mode():
            ids = model.generate(
                **inputs, max_new_tokens=params.max_tokens, do_sample=False, eos_token_id=end
            )
        new = ids[0, inputs["input_ids"].shape[1] :].tolist()
        made = processor.tokenizer.decode(new, skip_special_tokens=params.skip_special_tokens)
        cuts = [(made.find(stop) + len(stop), stop) for stop in params.stop or () if stop in made]
        count = inputs["input_ids"].shape[1]
        if cuts:
            place, stop = min(cuts)
            assert params.include_stop_str_in_output
            return _Made(made[:place], new, "stop", stop), count
        return _Made(made, new, "stop" if new[-1] == end else "length"), count


def _echo(text: str, images: list[Any], params: SamplingParams, lora: Any) -> tuple[_Made, int]:
    structured = params.structured_outputs
    facts = {
        "tail": text[-40:], "images": [image.size for image in images], "temperature": params.temperature,
        "seed": params.seed, "stop": params.stop, "max_tokens": params.max_tokens,
        "lora": None if lora is None else [lora.lora_name, lora.lora_int_id, lora.lora_path],
        "structured": None if structured is None else structured.given(),
        "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }  # fmt: skip
    if "</think>" in (params.stop or ()):
        if "CLOSES" in text:
            return _Made("hm </think>", [1] * 5, "stop", "</think>"), 9
        return _Made("hm hm", [1] * 5, "length"), 9
    return _Made(json.dumps(facts) + "<|im_end|>", [1, 2, 3], "stop"), 9
