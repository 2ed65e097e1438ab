"""Verify a merged model: compare it with base and adapter, and hold every difference against a noise floor.

How it works: the reference is base and adapter as PEFT computes them, not merged, in fp32 arithmetic. It
answers every probe greedily. Other models are then compared with it over the last `POSITIONS` positions of
prompt and answer, so that "greedy tokens" are the argmax at every step of one shared path:

    floor      base and adapter, not merged, in bf16 arithmetic: the noise of this model where it usually runs
    in memory  PEFT's own merge, fp32: the sum itself, computed by other code than ours, nothing rounded
    reloaded   the written folder, fp32 arithmetic: the sum after its rounding to the stored type
    served     the written folder, bf16 arithmetic
    effect     the base alone: how far the adapter moves the model

A distance is the largest absolute difference of a logit, the root mean square of the differences, the mean
KL(reference || other) in nats, and the share of equal greedy tokens.

Guarantees:
    - Changed tensors equal PEFT's merge to one rounding of the stored type; all others equal the base's byte
      for byte.
    - In memory and reloaded stay within 2 floors of logits and 4 of KL (KL grows with the square); a greedy
      token differs only where the reference's two best logits are closer than 2 floors.
    - Served stays within 3 floors of logits and 9 of KL: it has the noise floor and the merge.
    - Rounding takes away at most half of the adapter's effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import DataError
from dfkeval.models import adapters
from dfktrain.merging.probes import Probe, load_probe_processor
from dfktrain.merging.reference import load_network, load_reference
from dfktrain.weights import lora
from dfktrain.weights.safetensors_io import TensorEntry, TensorFile, read_tensors, weight_files

POSITIONS = 64
"""Positions of a probe that are compared, counted from the end of the greedy answer."""

ANSWER = 24
"""Greedy tokens of the reference's answer to a probe."""

LOGITS, KL = 2.0, 4.0
SERVED_LOGITS, SERVED_KL = 3.0, 9.0
LOST = 0.5


@dataclass(frozen=True)
class Distance:
    """How far a model is from the reference.

    Attributes:
        max_logit: Largest absolute difference of a logit.
        rms_logit: Root mean square of the differences of logits.
        mean_kl: Mean KL divergence in nats a position.
        greedy: Share of equal greedy tokens.
        widest_flip: Largest gap between the reference's two best logits at which a greedy token differs; 0 if
            none differs.
    """

    max_logit: float
    rms_logit: float
    mean_kl: float
    greedy: float
    widest_flip: float


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        probes: Number of prompts.
        positions: Number of compared positions.
        stored: Types of the written tensors, such as "BF16+F32".
        device: Where the models ran.
        floor: Distance of base and adapter in bf16.
        in_memory: Distance of PEFT's own merge.
        reloaded: Distance of the written folder in fp32.
        served: Distance of the written folder in bf16.
        effect: Distance of the base alone.
        lost: Share of the effect (rms of the logits) that rounding takes away.
        weights: Number of changed and of kept tensors.
        faults: The broken bounds; empty if the merge is verified.
    """

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
        """Return the entry in merge-report.json: the figures with their bounds."""
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
    """Compare a merged model with its base and adapter.

    Args:
        base: Folder of the base.
        adapter: The adapter.
        merged: Folder of the merged model.
        changed: Names of the tensors that may differ from the base's.
        probes: The prompts.
        device: "auto", "cpu" or "cuda".
        say: Receives a line for each step.

    Returns:
        The figures; a bound that does not hold is in `faults`.

    Raises:
        DataError: A written weight is not the sum that PEFT computes, or a logit is not finite.
    """
    suite = _ProbeSuite(merged, probes, device)
    say("base and adapter, not merged and merged in memory, fp32")
    answers, in_memory, weights = _compare_in_memory(suite, base, adapter, merged, changed)
    say("base alone, fp32")
    effect = _compare_folder(suite, base, "float32", answers)
    say("merged, reloaded, fp32")
    reloaded = _compare_folder(suite, merged, "float32", answers)
    say("merged, reloaded, bf16")
    served = _compare_folder(suite, merged, "bfloat16", answers)
    say("base and adapter, bf16: the noise floor")
    floor = _compare_adapted(suite, base, adapter, answers)
    lost = reloaded.rms_logit / effect.rms_logit if effect.rms_logit else float("inf")
    return Verification(
        probes=len(probes),
        positions=sum(answer.logits.shape[0] for answer in answers),
        stored=_stored_types(merged),
        device=suite.device,
        floor=floor,
        in_memory=in_memory,
        reloaded=reloaded,
        served=served,
        effect=effect,
        lost=lost,
        weights=weights,
        faults=tuple(_faults(floor, in_memory, reloaded, served, lost)),
    )


def _compare_in_memory(
    suite: _ProbeSuite, base: Path, adapter: lora.Adapter, merged: Path, changed: set[str]
) -> tuple[list[_Answer], Distance, dict[str, int]]:
    """Return (the reference's answers, distance of PEFT's own merge, counts of compared weights)."""
    net = load_reference(base, adapter, suite.processor, "float32", suite.device)
    answers = suite.answers(net)
    whole = net.merge_and_unload(safe_merge=True)
    return answers, suite.distance(whole, answers), compare_weights(base, merged, whole, changed)


def _compare_folder(suite: _ProbeSuite, folder: Path, dtype: str, answers: list[_Answer]) -> Distance:
    """Return the distance of the model in a folder, whose memory is free again afterwards."""
    return suite.distance(load_network(folder, dtype, suite.device), answers)


def _compare_adapted(
    suite: _ProbeSuite, base: Path, adapter: lora.Adapter, answers: list[_Answer]
) -> Distance:
    net = load_reference(base, adapter, suite.processor, "bfloat16", suite.device)
    return suite.distance(net, answers)


def _faults(
    floor: Distance, memory: Distance, reloaded: Distance, served: Distance, lost: float
) -> Iterator[str]:
    checks = (
        ("merged in memory", memory, LOGITS, KL, LOGITS),
        ("merged and reloaded", reloaded, LOGITS, KL, LOGITS),
        ("merged, served in bf16", served, SERVED_LOGITS, SERVED_KL, None),
    )
    for name, distance, logits, kl, flip in checks:
        if not distance.max_logit <= logits * floor.max_logit:
            allowed = f"{logits:g} x {floor.max_logit:.3g}"
            yield f"{name}: logits differ by {distance.max_logit:.3g}, allowed {allowed}"
        if not distance.mean_kl <= kl * floor.mean_kl:
            yield f"{name}: KL is {distance.mean_kl:.3g} nats, allowed {kl:g} x {floor.mean_kl:.3g}"
        if flip is not None and not distance.widest_flip <= flip * floor.max_logit:
            yield f"{name}: a greedy token differs where the best two are {distance.widest_flip:.3g} apart"
    if not lost <= LOST:
        yield (
            f"rounding to the stored type takes away {lost:.0%} of what the adapter changes; it is too weak "
            "for these weights: serve base and adapter, or merge into a base saved in float32"
        )


def compare_weights(base: Path, merged: Path, net: Any, changed: set[str]) -> dict[str, int]:
    """Compare the written weights with the base's and with PEFT's merge.

    Args:
        base: Folder of the base.
        merged: Folder of the merged model.
        net: PEFT's merge.
        changed: Names of the tensors that may differ from the base's.

    Returns:
        Number of "changed" and "kept" tensors.

    Raises:
        DataError: A changed tensor is not PEFT's to one rounding, or another one is not the base's.
    """
    sums = {adapters.plain_name(name): tensor.detach() for name, tensor in net.named_parameters()}
    counts = {"changed": 0, "kept": 0}
    for old, new in zip(weight_files(base), weight_files(merged), strict=True):
        kept = [entry for entry in new.entries if entry.name not in changed]
        _check_equal_bytes(old, new, kept)
        counts["kept"] += len(kept)
        names = [entry.name for entry in new.entries if entry.name in changed]
        for name, tensor in read_tensors(new.path, names):
            _check_rounded(name, tensor, sums.get(adapters.plain_name(name)))
            counts["changed"] += 1
    return counts


def _check_equal_bytes(old: TensorFile, new: TensorFile, entries: list[TensorEntry]) -> None:
    with old.path.open("rb") as before, new.path.open("rb") as after:
        for entry in entries:
            before.seek(entry.start)
            after.seek(entry.start)
            length = entry.end - entry.start
            if before.read(length) != after.read(length):
                raise DataError(f"the merged {entry.name} differs from the base's, though nothing changes it")


def _check_rounded(name: str, written: Tensor, summed: Tensor | None) -> None:
    """Raise unless `written` is `summed` after one rounding; fp32 sums may differ in the order of addition."""
    if summed is None:
        raise DataError(f"the merged {name} is no parameter of the loaded model, so it cannot be verified")
    expected = summed.cpu().float()
    allowed = torch.finfo(written.dtype).eps * expected.abs() + 1e-5 * expected.abs().max()
    worst = (written.float() - expected).abs() - allowed
    if not bool((worst <= 0).all()):
        raise DataError(
            f"the merged {name} is not base plus adapter as PEFT sums them (off by "
            f"{float(worst.max()):.3g} beyond one rounding); nothing is written"
        )


def _stored_types(folder: Path) -> str:
    return "+".join(sorted({entry.dtype for file in weight_files(folder) for entry in file.entries}))


@dataclass(frozen=True)
class _Answer:
    """The reference on one probe: prompt and greedy answer, and its logits, (positions, vocabulary), fp32."""

    inputs: dict[str, Tensor]
    logits: Tensor


class _ProbeSuite:
    """The probes as tensors, for any of the models."""

    def __init__(self, folder: Path, probes: Sequence[Probe], device: str) -> None:
        self.processor = load_probe_processor(folder)
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

    def answers(self, net: Any) -> list[_Answer]:
        """Return the greedy answer of a model to every probe, with the logits along it."""
        answers = []
        for prompt in self.prompts:
            inputs = _with_answer(net, {name: value.to(net.device) for name, value in prompt.items()})
            answers.append(_Answer(inputs, _logits(net, inputs)))
        return answers

    def distance(self, net: Any, answers: list[_Answer]) -> Distance:
        """Return how far a model is from the reference that gave the answers."""
        parts = [_difference(answer.logits, _logits(net, answer.inputs)) for answer in answers]
        count = sum(part["positions"] for part in parts)
        width = answers[0].logits.shape[1]
        return Distance(
            max_logit=max(part["max"] for part in parts),
            rms_logit=(sum(part["squares"] for part in parts) / (count * width)) ** 0.5,
            mean_kl=max(0.0, sum(part["kl"] for part in parts) / count),
            greedy=sum(part["equal"] for part in parts) / count,
            widest_flip=max(part["flip"] for part in parts),
        )


def _with_answer(net: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the prompt followed by the model's greedy answer."""
    from transformers import GenerationConfig

    generation = GenerationConfig(max_new_tokens=ANSWER, do_sample=False, pad_token_id=0, eos_token_id=None)
    with torch.inference_mode():
        whole = net.generate(**inputs, generation_config=generation)
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
    """Return the logits of the last positions, (positions, vocabulary), in fp32 on the CPU."""
    placed = {name: value.to(net.device) for name, value in inputs.items()}
    if "pixel_values" in placed:
        placed["pixel_values"] = placed["pixel_values"].to(net.dtype)
    with torch.inference_mode():
        logits: Tensor = net(**placed, use_cache=False).logits[0, -POSITIONS:].float().cpu()
    if not bool(torch.isfinite(logits).all()):
        raise DataError("the model's logits hold NaN or infinity")
    return logits


def _difference(reference: Tensor, other: Tensor) -> dict[str, float]:
    gap = (other - reference).abs()
    expected, actual = (torch.log_softmax(logits.double(), dim=-1) for logits in (reference, other))
    best = reference.topk(2, dim=-1)
    flipped = other.argmax(dim=-1) != best.indices[:, 0]
    margins = (best.values[:, 0] - best.values[:, 1])[flipped]
    return {
        "positions": gap.shape[0],
        "max": float(gap.max()),
        "squares": float(gap.double().square().sum()),
        "kl": float((expected.exp() * (expected - actual)).sum()),
        "equal": float((~flipped).sum()),
        "flip": float(margins.max()) if len(margins) else 0.0,
    }
