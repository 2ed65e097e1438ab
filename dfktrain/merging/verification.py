"""The proof of a merge: three models asked the same questions, and every difference held against a noise
floor.

Reference: base and adapter as PEFT computes them, unmerged, in fp32 arithmetic. Everything below is a
distance from it, over the last `POSITIONS` positions of each probe followed by the reference's own greedy
answer (so "greedy tokens" are the argmax at every step of one shared path):

    floor      the same unmerged model in bf16 arithmetic: what this model's numbers are worth where it
    usually runs in memory  PEFT's own merge, fp32: the sum itself, computed by other code than ours, nothing
    rounded reloaded   the written folder, fp32 arithmetic: the sum after its rounding to the stored type
    served     the written folder, bf16 arithmetic
    effect     the base alone: how far the adapter moves the model

A distance is the largest |difference of logits|, the root mean square of it, the mean KL(reference || other)
in nats, and the share of equal greedy tokens. Bounds: in memory and reloaded stay within 2 floors of logits
and 4 of KL (KL grows with the square); a greedy token may differ only where the reference's two best logits
are closer than 2 floors; served stays within 3 and 9 (the floor and the merge on top of each other); and
rounding may not take away more than half of the adapter's effect. Before that the written weights are
compared with PEFT's: changed tensors to one rounding of the stored type, all others byte for byte with the
base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import DataError
from dfkeval.models import adapters
from dfktrain.merging.probes import Probe, processor
from dfktrain.merging.reference import adapted, network
from dfktrain.weights import lora
from dfktrain.weights.safetensors_io import TensorEntry, weight_files

POSITIONS = 64
"""Positions of a probe that are compared, counted from the end of the greedy answer."""

ANSWER = 24
"""Greedy tokens of the reference's answer to a probe."""

LOGITS, KL = 2.0, 4.0
SERVED_LOGITS, SERVED_KL = 3.0, 9.0
LOST = 0.5


@dataclass(frozen=True)
class Distance:
    """How far a model is from the reference. max_logit, rms_logit: of the difference of logits. mean_kl: nats
    a position. greedy: share of equal greedy tokens. widest_flip: the largest gap between the reference's two
    best logits at which a greedy token differs, 0 for none."""

    max_logit: float
    rms_logit: float
    mean_kl: float
    greedy: float
    widest_flip: float


@dataclass(frozen=True)
class Verification:
    """floor, in_memory, reloaded, served, effect: see the module. lost: rounding's share of the effect (rms).

    weights: tensors compared with PEFT's merge. faults: what broke a bound; empty when the merge is
    proved."""

    probes: int
    positions: int
    stored: str
    device: str
    floor: Distance
    in_memory: Distance
    reloaded: Distance
    served: Distance
    effect: Distance
    lost: float
    weights: dict[str, int]
    faults: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """For merge-report.json, the bounds beside the figures."""
        logit, kl = self.floor.max_logit, self.floor.mean_kl
        bounds = {
            "in_memory": {"max_logit": LOGITS * logit, "mean_kl": KL * kl, "widest_flip": LOGITS * logit},
            "reloaded": {"max_logit": LOGITS * logit, "mean_kl": KL * kl, "widest_flip": LOGITS * logit},
            "served": {"max_logit": SERVED_LOGITS * logit, "mean_kl": SERVED_KL * kl},
            "lost": LOST,
        }
        return asdict(self) | {"bounds": bounds, "passed": not self.faults}


Say = Callable[[str], None]


def verify_merge(
    base: Path,
    adapter: lora.Adapter,
    merged: Path,
    changed: set[str],
    probes: Sequence[Probe],
    *,
    device: str,
    say: Say,
) -> Verification:
    """Compare `merged` with `base` and `adapter`. changed: names of the tensors that may differ from the
    base's.

    Raises `DataError` where a written weight is not the sum that PEFT computes; every other failure is in
    `faults`."""
    ask = _Questions(merged, probes, device)
    say("base and adapter, unmerged and merged in memory, fp32")
    reference, in_memory, weights = _unmerged(ask, base, adapter, merged, changed)
    say("base alone, fp32")
    effect = _alone(ask, base, "float32", reference)
    say("merged, reloaded, fp32")
    reloaded = _alone(ask, merged, "float32", reference)
    say("merged, reloaded, bf16")
    served = _alone(ask, merged, "bfloat16", reference)
    say("base and adapter, bf16: the noise floor")
    floor = _floor(ask, base, adapter, reference)
    lost = reloaded.rms_logit / effect.rms_logit if effect.rms_logit else float("inf")
    return Verification(
        probes=len(probes),
        positions=sum(answer.logits.shape[0] for answer in reference),
        stored=_stored(merged),
        device=ask.device,
        floor=floor,
        in_memory=in_memory,
        reloaded=reloaded,
        served=served,
        effect=effect,
        lost=lost,
        weights=weights,
        faults=tuple(_faults(floor, in_memory, reloaded, served, lost)),
    )


def _unmerged(
    ask: _Questions, base: Path, adapter: lora.Adapter, merged: Path, changed: set[str]
) -> tuple[list[_Answer], Distance, dict[str, int]]:
    """(the reference, how far PEFT's own merge is from it, counts of weights compared with that merge)."""
    net = adapted(base, adapter, ask.processor, "float32", ask.device)
    reference = ask.reference(net)
    whole = net.merge_and_unload(safe_merge=True)
    return reference, ask.distance(whole, reference), compare_weights(base, merged, whole, changed)


def _alone(ask: _Questions, folder: Path, dtype: str, reference: list[_Answer]) -> Distance:
    """The model of a folder, which is free again on return."""
    return ask.distance(network(folder, dtype, ask.device), reference)


def _floor(ask: _Questions, base: Path, adapter: lora.Adapter, reference: list[_Answer]) -> Distance:
    return ask.distance(adapted(base, adapter, ask.processor, "bfloat16", ask.device), reference)


def _faults(
    floor: Distance, memory: Distance, reloaded: Distance, served: Distance, lost: float
) -> Iterator[str]:
    checks = (
        ("merged in memory", memory, LOGITS, KL, LOGITS),
        ("merged and reloaded", reloaded, LOGITS, KL, LOGITS),
        ("merged, served in bf16", served, SERVED_LOGITS, SERVED_KL, None),
    )
    for name, found, logits, kl, flip in checks:
        if not found.max_logit <= logits * floor.max_logit:
            allowed = f"{logits:g} x {floor.max_logit:.3g}"
            yield f"{name}: logits differ by {found.max_logit:.3g}, allowed {allowed}"
        if not found.mean_kl <= kl * floor.mean_kl:
            yield f"{name}: KL is {found.mean_kl:.3g} nats, allowed {kl:g} x {floor.mean_kl:.3g}"
        if flip is not None and not found.widest_flip <= flip * floor.max_logit:
            yield f"{name}: a greedy token differs where the best two are {found.widest_flip:.3g} apart"
    if not lost <= LOST:
        yield (
            f"rounding to the stored type takes away {lost:.0%} of what the adapter changes; it is too weak "
            "for these weights: serve base and adapter, or merge into a base saved in float32"
        )


def compare_weights(base: Path, merged: Path, net: Any, changed: set[str]) -> dict[str, int]:
    """Counts of tensors: changed, as PEFT has them to one rounding; and kept, byte for byte. Raises
    `DataError`."""
    ours = {adapters.plain_name(name): tensor.detach() for name, tensor in net.named_parameters()}
    same = rounded = 0
    for old, new in zip(weight_files(base), weight_files(merged), strict=True):
        kept = {entry.name for entry in new.entries} - changed
        _require_equal_bytes(old.path, new.path, [entry for entry in new.entries if entry.name in kept])
        same += len(kept)
        for entry, tensor in new.tensors():
            if entry.name in changed:
                _require_rounded(entry, tensor, ours.get(adapters.plain_name(entry.name)))
                rounded += 1
    return {"changed": rounded, "kept": same}


def _require_equal_bytes(old: Path, new: Path, entries: list[TensorEntry]) -> None:
    with old.open("rb") as one, new.open("rb") as two:
        for entry in entries:
            one.seek(entry.start)
            two.seek(entry.start)
            if one.read(entry.end - entry.start) != two.read(entry.end - entry.start):
                raise DataError(f"the merged {entry.name} differs from the base's, though nothing changes it")


def _require_rounded(entry: TensorEntry, written: Tensor, summed: Tensor | None) -> None:
    """`written` is `summed` after one rounding to its type; fp32 sums may differ in the order of addition."""
    if summed is None:
        raise DataError(f"the merged {entry.name} is no parameter of the loaded model, so nothing proves it")
    wanted = summed.cpu().float()
    allowed = torch.finfo(written.dtype).eps * wanted.abs() + 1e-5 * wanted.abs().max()
    worst = (written.float() - wanted).abs() - allowed
    if not bool((worst <= 0).all()):
        raise DataError(
            f"the merged {entry.name} is not base plus adapter as PEFT sums them (off by "
            f"{float(worst.max()):.3g} beyond one rounding); nothing is written"
        )


def _stored(folder: Path) -> str:
    kinds = {entry.dtype for file in weight_files(folder) for entry in file.entries}
    return "+".join(sorted(kinds))


@dataclass(frozen=True)
class _Answer:
    """The reference on one probe. inputs: prompt and greedy answer. logits: (positions, vocabulary), fp32,
    CPU."""

    inputs: dict[str, Tensor]
    logits: Tensor


class _Questions:
    """The probes, as tensors for any of the models."""

    def __init__(self, folder: Path, probes: Sequence[Probe], device: str) -> None:
        self.processor = processor(folder)
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.prompts = [self._prompt(probe) for probe in probes]

    def _prompt(self, probe: Probe) -> dict[str, Tensor]:
        text = self.processor.apply_chat_template(
            probe.messages,
            tools=probe.tools,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        if not hasattr(self.processor, "image_processor"):
            return dict(self.processor(text, return_tensors="pt", add_special_tokens=False))
        return dict(
            self.processor(
                text=[text], images=[list(probe.images)] if probe.images else None, return_tensors="pt"
            )
        )

    def reference(self, net: Any) -> list[_Answer]:
        """The greedy answer to every probe and the logits along it."""
        found = []
        for prompt in self.prompts:
            inputs = _extended(net, {name: value.to(net.device) for name, value in prompt.items()})
            found.append(_Answer(inputs, _logits(net, inputs)))
        return found

    def distance(self, net: Any, reference: list[_Answer]) -> Distance:
        """How far `net` is from the reference."""
        parts = [_difference(answer.logits, _logits(net, answer.inputs)) for answer in reference]
        count = sum(part["positions"] for part in parts)
        width = reference[0].logits.shape[1]
        return Distance(
            max_logit=max(part["max"] for part in parts),
            rms_logit=(sum(part["squares"] for part in parts) / (count * width)) ** 0.5,
            mean_kl=max(0.0, sum(part["kl"] for part in parts) / count),
            greedy=sum(part["equal"] for part in parts) / count,
            widest_flip=max(part["flip"] for part in parts),
        )


def _extended(net: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The prompt followed by the model's greedy answer."""
    from transformers import GenerationConfig

    plan = GenerationConfig(max_new_tokens=ANSWER, do_sample=False, pad_token_id=0, eos_token_id=None)
    with torch.inference_mode():
        whole = net.generate(**inputs, generation_config=plan)
    added = whole.shape[1] - inputs["input_ids"].shape[1]
    longer = dict(inputs, input_ids=whole)
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in inputs:
            filler = torch.full(
                (1, added), int(name == "attention_mask"), dtype=inputs[name].dtype, device=whole.device
            )
            longer[name] = torch.cat([inputs[name], filler], dim=1)
    return longer


def _logits(net: Any, inputs: dict[str, Tensor]) -> Tensor:
    """(positions, vocabulary) in fp32 on the CPU. Raises `DataError` for NaN."""
    placed = {name: value.to(net.device) for name, value in inputs.items()}
    if "pixel_values" in placed:
        placed["pixel_values"] = placed["pixel_values"].to(net.dtype)
    with torch.inference_mode():
        found = net(**placed, use_cache=False).logits[0, -POSITIONS:].float().cpu()
    if not bool(torch.isfinite(found).all()):
        raise DataError("the model's logits hold NaN or infinity")
    return found


def _difference(reference: Tensor, other: Tensor) -> dict[str, float]:
    gap = (other - reference).abs()
    wanted, found = (torch.log_softmax(each.double(), dim=-1) for each in (reference, other))
    best = reference.topk(2, dim=-1)
    flipped = other.argmax(dim=-1) != best.indices[:, 0]
    margins = (best.values[:, 0] - best.values[:, 1])[flipped]
    return {
        "positions": gap.shape[0],
        "max": float(gap.max()),
        "squares": float(gap.double().square().sum()),
        "kl": float((wanted.exp() * (wanted - found)).sum()),
        "equal": float((~flipped).sum()),
        "flip": float(margins.max()) if len(margins) else 0.0,
    }
