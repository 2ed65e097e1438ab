"""How far the numbers of continuous batching are from transformers' own."""

from __future__ import annotations

from typing import Any

import pieces


def check(bench: Any) -> dict[str, Any]:
    """How far the numbers are from transformers' own: texts of the built-in model in fp32, and errors of a
    decode step's logits in bf16 against fp32."""
    _network_forward_again()
    bench.start()
    found: dict[str, Any] = {"texts": _equal_texts(bench)}
    pieces.write_result(bench.work, "generate-Echeck", found, partial=True)
    return found | {"logits": _errors(bench)}


def attention_apart(device: str) -> dict[str, float]:
    """Return how far attention over stretches in bf16 is from one attention a stretch in fp32, relative to its
    size: of queries behind a known beginning, and of a layer of the vision tower."""
    import torch

    from dfkeval.models import attention, loader

    torch.manual_seed(0)
    lengths = [5, 1, 130, 64], [905, 901, 130, 1000]
    borders = tuple(attention.borders_of(each).to(device) for each in lengths)
    made = {"device": device, "dtype": torch.bfloat16}
    query = torch.randn(sum(lengths[0]), 8, 256, **made)
    key, value = (torch.randn(sum(lengths[1]), 2, 256, **made) for _ in range(2))

    def apart(got: Any, wanted: Any) -> float:
        return float((got.float() - wanted.float()).norm() / wanted.float().norm())

    with torch.inference_mode():
        found = {
            f"causal {causal}": apart(
                attention.attend(query, key, value, borders, lengths, causal=causal),
                attention.attend(query.float(), key.float(), value.float(), borders, lengths, causal=causal),
            )
            for causal in (True, False)
        }
        tower = loader.load("tiny", dtype="bfloat16", device=device).model.model.visual
        layer = next(each for each in tower.modules() if type(each).__name__.endswith("VisionAttention"))
        states = torch.randn(36, layer.dim, **made)
        angles = torch.randn(36, layer.head_dim, **made)
        given = {
            "cu_seqlens": attention.borders_of([8, 24, 4]).to(device),
            "position_embeddings": (angles.cos(), angles.sin()),
        }
        together = attention.together(layer, [8, 24, 4])
        found["tower"] = apart(together(layer, states, **given), layer(states, **given))
    return found


def _equal_texts(bench: Any) -> dict[str, Any]:
    """Return how many texts of the built-in model in fp32 are those of `model.generate`."""
    from dfkeval import backends
    from dfkeval.backends.transformers import Transformers
    from dfkeval.models import loader

    loaded = loader.load("tiny", dtype="float32")
    asked = [
        backends.Request(id=each["id"], messages=each["messages"], images=tuple(each["images"]))
        for each in bench.requests[:48]
    ]
    found: dict[str, Any] = {}
    for name, more in (("greedy", {}), ("drawn", {"temperature": 1.0, "top_p": 0.9, "seed": 5})):
        sampling = backends.Sampling(max_new_tokens=32, **more)
        texts = [
            {made.id: made.text for made in Transformers(loaded, batching=way, batch_size=16).generate(asked, sampling)}
            for way in ("static", "continuous")
        ]  # fmt: skip
        equal = sum(texts[0][key] == texts[1][key] for key in texts[0])
        found[name] = f"{equal} of {len(texts[0])}"
    return found


def _errors(bench: Any) -> dict[str, Any]:
    """Return the root mean square error of centred logits behind prompts and eight more tokens each, of ours
    and of the network itself in bf16, against the network in fp32."""
    import torch

    from dfkeval.backends._continuous import weights
    from dfkeval.backends._continuous.caches import Caches
    from dfkeval.backends._continuous.decoder import Decoder
    from dfkeval.backends._continuous.packing import PromptPart, pack

    model = bench.load()
    device, kind = model.device, model.dtype
    texts = [each for each in bench.requests if not each["images"]][:8]
    ids = [bench.processor.tokenizer.encode(bench.prompt(each), add_special_tokens=False) for each in texts]
    read = weights.read(model, kind)
    decoder = Decoder(model, read, Caches(read, len(ids), 2048))

    def plain() -> Any:
        return torch.cat(
            [model(input_ids=torch.tensor([row], device=device)).logits[0, -9:] for row in ids]
        ).float()

    with torch.inference_mode():
        parts = [PromptPart(at, 0, row[:-8]) for at, row in enumerate(ids)]
        packed = pack(parts, read.sizes.taps, lambda each: each.to(device))
        ours = [decoder.logits(decoder.prefill(packed)[packed.last])]
        rows = torch.arange(len(ids), device=device)
        decoder.lengths[rows] = torch.tensor([len(row) - 8 for row in ids], device=device)
        for back in range(8, 0, -1):
            decoder.tokens[rows] = torch.tensor([row[-back] for row in ids], device=device)
            ours.append(decoder.step(rows))
            decoder.lengths[rows] += 1
        mine, theirs = torch.stack(ours, 1).flatten(0, 1).float(), plain()
        exact = (model.float(), plain())[1]
    centred = [each - each.mean(-1, keepdim=True) for each in (mine, theirs, exact)]
    size = centred[2].pow(2).mean().sqrt()
    errors = [float((each - centred[2]).pow(2).mean().sqrt() / size) for each in centred[:2]]
    agree = [float((each.argmax(-1) == exact.argmax(-1)).float().mean()) for each in (mine, theirs)]
    return {
        "ours": errors[0],
        "transformers": errors[1],
        "argmax_ours": agree[0],
        "argmax_transformers": agree[1],
    }


def _network_forward_again() -> None:
    """Let transformers' own model answer without forced lengths."""
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForConditionalGeneration as Network

    Network.forward = Network.forward.__wrapped__
