"""SFT-Plus: the plain formula, its limits, the base as the teacher, and every way a batch can be split."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dfkdata.common.config import load_config
from dfkdata.common.errors import ConfigError
from dfktrain import TrainConfig, train
from dfktrain.config.model import AdapterConfig
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.data.packing import Packer, patch_fallbacks
from dfktrain.engines import LoadedBase, adapt, bare, trainable
from dfktrain.losses import cross_entropy
from dfktrain.losses import kl_to_base as module
from dfktrain.losses.attach import score_answers
from dfktrain.losses.cross_entropy import answer_loss
from dfktrain.losses.kl_to_base import (
    AdapterDisabledTeacher,
    FrozenTeacher,
    KLToBase,
    kl_to_base,
    kl_to_base_loss,
)
from dfktrain.training.contexts import vision_frozen
from tests.helpers.models import text_row, write_rows


def setting(bias: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    hidden, base = torch.randn(3, 17, 8, requires_grad=True), torch.randn(3, 17, 8)
    labels = torch.randint(0, 50, (3, 17))
    labels[torch.rand(3, 17) < 0.6] = IGNORE
    return hidden, base, labels, nn.Linear(8, 50, bias=bias), nn.Linear(8, 50, bias=bias)


def keep(share: float, temperature: float) -> KLToBase:
    return KLToBase(None, share, temperature)  # type: ignore[arg-type] # the loss itself asks no teacher


def plain(
    hidden: torch.Tensor,
    base: torch.Tensor,
    labels: torch.Tensor,
    heads: Any,
    share: float,
    t: float,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """(1 - share) CE + share KL(base || student) over all positions, as the formula is written."""
    logits, wanted = heads[0](hidden)[:, :-1], heads[1](base)[:, :-1]
    targets = labels[:, 1:]
    ce = nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORE, reduction="none")
    p, q = (wanted / t).softmax(-1), (logits / t).softmax(-1)
    kl = (p * (p.log() - q.log())).sum(-1)
    terms = (1 - share) * ce + share * kl
    return (terms if weights is None else terms * weights[:, 1:])[targets != IGNORE].sum()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize(("share", "temperature"), [(0.3, 1.0), (0.7, 2.5), (0.999, 0.5)])
@pytest.mark.parametrize("weighed", [False, True])
def test_value_and_gradients_equal_the_plain_formula(
    bias: bool, chunk: int | None, share: float, temperature: float, weighed: bool
) -> None:
    hidden, base, labels, head, base_head = setting(bias)
    base_head.requires_grad_(False)
    heads, weights = (head, base_head), torch.rand(3, 17) + 0.2 if weighed else None
    ours, ce, kl = kl_to_base_loss(hidden, base, labels, heads, keep(share, temperature), chunk, weights)
    results = []
    for value in (plain(hidden, base, labels, heads, share, temperature, weights), ours):
        gradients = torch.autograd.grad(value, [hidden, head.weight])
        results.append((value.detach(), *gradients))
    for left, right in zip(*results, strict=True):
        assert float((left - right).norm() / left.norm()) <= 1e-6
    mixed = (1 - share) * float(ce) + share * float(kl)
    assert float(ours.detach()) == pytest.approx(mixed, rel=1e-6)
    assert not ce.requires_grad and not kl.requires_grad


def test_a_higher_temperature_lessens_the_influence_of_the_base() -> None:
    hidden, base, labels, head, base_head = setting()
    pulls = []
    for temperature in (0.5, 1.0, 2.0, 4.0):
        heads = (head, base_head)
        value, _, _ = kl_to_base_loss(hidden, base, labels, heads, keep(0.999, temperature))
        pulls.append(float(torch.autograd.grad(value, hidden)[0].norm()))
    assert pulls == sorted(pulls, reverse=True)
    assert (
        pulls[-1] < 0.2 * pulls[1]
    )  # about 1 / T^2 for small differences: with the factor T^2 it would not fall


def test_where_the_student_equals_the_base_only_the_cross_entropy_pulls() -> None:
    hidden, _, labels, head, _ = setting()
    value, ce, kl = kl_to_base_loss(hidden, hidden.detach(), labels, (head, head), keep(0.4, 1.0))
    mixed = torch.autograd.grad(value, hidden)[0]
    alone = torch.autograd.grad(answer_loss(hidden, labels, head), hidden)[0]
    assert float(kl) == pytest.approx(0, abs=1e-5)
    assert float((mixed - 0.6 * alone).norm() / alone.norm()) <= 1e-6
    assert float(ce) == pytest.approx(float(answer_loss(hidden, labels, head).detach()), rel=1e-6)


class Tables(TorchDispatchMode):
    """The most bytes of tensors as wide as the vocabulary that are alive at once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.now, self.peak = width, 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 2 and tensor.shape[-1] == self.width:
                self._watch(tensor.untyped_storage())
        return out

    def _watch(self, storage: Any) -> None:
        if storage._cdata in self.known:
            return
        size = storage.nbytes()
        self.known.add(storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def test_the_tables_of_logits_take_no_more_memory_than_in_plain_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 50 * 64)
    torch.manual_seed(0)
    hidden, base = torch.randn(4, 200, 8, requires_grad=True), torch.randn(4, 200, 8)
    labels, head = torch.randint(0, 50, (4, 200)), nn.Linear(8, 50, bias=False)
    head.requires_grad_(False)
    peaks = []
    for job in (
        lambda: answer_loss(hidden, labels, head),
        lambda: kl_to_base_loss(hidden, base, labels, (head, head), keep(0.5, 2.0))[0],
    ):
        with Tables(50) as tables:
            job().backward()
        peaks.append(tables.peak)
    assert 0 < peaks[1] <= peaks[0]
    assert peaks[0] < 4 * 199 * 50 * 4  # and neither holds the logits of all positions


# ------------------------------------------------------------------------------------------------ the network


@pytest.fixture
def adapted(model: Any, processor: Any) -> Any:
    """A model with an adapter that is not at its start, with dropout, so that a wrong teacher is seen."""
    torch.manual_seed(1)
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(rank=4, alpha=4, dropout=0.3))
    with torch.no_grad():
        for name, parameter in trainable(made):
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    score_answers(made)
    return made


def inputs_of(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


def test_the_adapter_off_is_the_base_and_leaves_no_trace(
    base_folder: Path, adapted: Any, processor: Any, rows: list[Any]
) -> None:
    from dfkeval.models import loader

    batch = Collator(processor)(rows[:3])
    untouched = loader.load(str(base_folder), device="cpu").model
    with torch.no_grad():
        wanted = untouched.model(**inputs_of(batch), use_cache=False).last_hidden_state
    net = bare(adapted.train())
    teacher = AdapterDisabledTeacher(adapted, net)
    with vision_frozen(adapted, True):
        before = [(name, parameter.requires_grad) for name, parameter in adapted.named_parameters()]
        states = teacher.states(inputs_of(batch))
        assert before == [(name, parameter.requires_grad) for name, parameter in adapted.named_parameters()]
    assert torch.equal(states, wanted) and not states.requires_grad
    assert adapted.training and all(not layer.disable_adapters for layer in teacher.layers)


def flat(model: Any) -> torch.Tensor:
    found = [p.grad.flatten() for _, p in trainable(model) if p.grad is not None]
    return torch.cat(found).double()


def test_the_gradient_of_the_whole_model_equals_the_plain_formula(
    adapted: Any, processor: Any, rows: list[Any]
) -> None:
    batch = Collator(processor)(rows)
    net = bare(adapted.eval())
    teacher = AdapterDisabledTeacher(adapted, net)
    with kl_to_base(net, KLToBase(teacher, 0.4, 2.0)):
        found = adapted(**batch)
    found.loss.backward()
    ours, value = flat(adapted), float(found.loss.detach())
    adapted.zero_grad()
    hidden = net.model(**inputs_of(batch), use_cache=False).last_hidden_state
    head = net.get_output_embeddings()
    right = plain(hidden, teacher.states(inputs_of(batch)), batch["labels"], (head, head), 0.4, 2.0)
    right.backward()
    assert value == pytest.approx(float(right.detach()), rel=1e-6)
    assert float((ours - flat(adapted)).norm() / ours.norm()) <= 1e-6
    assert float(found.kl) > 0.01


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize(
    ("target", "towers"), [("language", 1), ("all-linear", 2), (["q_proj", "embed_tokens"], 2)]
)
def test_the_teacher_sees_the_pictures_once_where_nothing_before_the_language_model_is_tuned(
    model: Any, processor: Any, rows: list[Any], target: Any, towers: int
) -> None:
    if "embed_tokens" in target:
        import peft

        settings = peft.LoraConfig(r=4, target_modules=target, task_type="CAUSAL_LM")
        made = peft.get_peft_model(model, settings)
    else:
        base = LoadedBase(model, processor, "random")
        made, _ = adapt(base, AdapterConfig(rank=4, alpha=4, target_modules=target))
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable(made):
            parameter.normal_(std=0.05)
    score_answers(made)
    batch = Collator(processor)(rows)
    net = bare(made.train())
    teacher, head, calls = AdapterDisabledTeacher(made, net), net.get_output_embeddings(), list[int]()
    handle = net.model.visual.register_forward_hook(lambda *_: calls.append(1))
    with kl_to_base(net, KLToBase(teacher, 0.4, 2.0)):
        made(**batch).loss.backward()
    handle.remove()
    assert len(calls) == towers
    ours = flat(made)
    made.zero_grad()
    hidden = net.model(**inputs_of(batch), use_cache=False).last_hidden_state
    base_states = teacher.states(inputs_of(batch))
    plain(hidden, base_states, batch["labels"], (head, head), 0.4, 2.0).backward()
    assert float((ours - flat(made)).norm() / ours.norm()) <= 1e-6


@pytest.mark.parametrize("way", ["packed", "one by one", "checkpointed"])
def test_the_gradient_does_not_depend_on_how_the_samples_are_run(
    adapted: Any, processor: Any, rows: list[Any], way: str
) -> None:
    collator = Collator(processor)
    patch_fallbacks("qwen3_5")
    net = bare(adapted)
    for layer in adapted.modules():  # dropout would draw other numbers for another split
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    adapted.train()
    results = []
    for split in (False, True):
        if split and way == "checkpointed":
            net.gradient_checkpointing_enable({"use_reentrant": False})
        batches = {"packed": [Packer(collator)(rows)], "one by one": [collator([row]) for row in rows]}
        adapted.zero_grad()
        with kl_to_base(net, KLToBase(AdapterDisabledTeacher(adapted, net), 0.4, 2.0)):
            for batch in batches.get(way, [collator(rows)]) if split else [collator(rows)]:
                adapted(**batch).loss.backward()
        results.append(flat(adapted))
    assert float((results[0] - results[1]).norm() / results[0].norm()) <= 2e-6


def test_a_frozen_copy_stays_as_it_was_and_shares_nothing(
    model: Any, processor: Any, rows: list[Any]
) -> None:
    batch = Collator(processor)(rows[:2])
    teacher = FrozenTeacher(model)
    before = teacher.states(inputs_of(batch))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert torch.equal(teacher.states(inputs_of(batch)), before)
    assert teacher.head.weight is teacher.body.get_input_embeddings().weight  # tied in the copy as well
    assert not any(parameter.requires_grad for parameter in teacher.body.parameters())


# ------------------------------------------------------------------------------------------------ whole runs


def config(base: Path, data: Path, adapter: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
    stage = {"name": "s", "data": [str(data)], "batch_size": 3, "learning_rate": 5e-3, "epochs": 1}
    made = {"model": {"name": str(base)}, "stages": [stage | changes]}
    return TrainConfig.model_validate(made | {"adapter": adapter or {"rank": 4}})


def adapter_of(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(out / "adapter/adapter_model.safetensors"))


def test_lambda_0_is_plain_training_bit_for_bit(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    plus = {"lambda": 0.0, "temperature": 3.0}
    train(config(base_folder, train_file), tmp_path / "sft")
    train(config(base_folder, train_file, sft_plus=plus), tmp_path / "plus")
    train(config(base_folder, train_file, sft_plus=plus | {"lambda": 0.5}), tmp_path / "half")
    sft, zero, half = (adapter_of(tmp_path / name) for name in ("sft", "plus", "half"))
    assert all(torch.equal(sft[name], zero[name]) for name in sft)
    assert not all(torch.equal(sft[name], half[name]) for name in sft)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_both_parts_are_logged_apart_in_training_and_validation(
    base_folder: Path, train_file: Path, held_file: Path, tmp_path: Path, kind: str
) -> None:
    plus = {"lambda": 0.25, "temperature": 2.0}
    adapter = {"kind": "full"} if kind == "full" else {"rank": 4}
    changes = {"validation": [str(held_file)], "sft_plus": plus, "learning_rate": 1e-3}
    made = config(base_folder, train_file, adapter, **changes)
    history = train(made, tmp_path / kind).stages[0].history
    for mark in ("", "eval_"):
        lines = [line for line in history if f"{mark}ce" in line]
        assert lines
        for line in lines:
            mixed = 0.75 * line[f"{mark}ce"] + 0.25 * line[f"{mark}kl"]
            assert line[f"{mark}loss"] == pytest.approx(mixed, rel=1e-5)
    assert history[0]["kl"] == pytest.approx(0, abs=1e-5)  # at the first step the student is the base
    assert [line["eval_kl"] for line in history if "eval_kl" in line][-1] > 0


def test_two_ranks_take_the_same_step_as_one(base_folder: Path, train_file: Path, tmp_path: Path) -> None:
    from tests.dfktrain.training.test_run_ranks import config as ranked
    from tests.dfktrain.training.test_run_ranks import run

    plus = {"lambda": 0.4, "temperature": 2.0}
    changes = {"sft_plus": plus, "learning_rate": 0.05, "steps": 2}  # the second step's KL is not zero
    alone = ranked(tmp_path, base_folder, train_file, batch_size=8, **changes)
    train(load_config(alone, TrainConfig), tmp_path / "one")
    both = ranked(tmp_path, base_folder, train_file, batch_size=2, accumulation=2, **changes)
    run(both, tmp_path / "two", 2)
    one, two = adapter_of(tmp_path / "one"), adapter_of(tmp_path / "two")
    left, right = (
        torch.cat([side[key].flatten().double() for key in one if "lora_B" in key]) for side in (one, two)
    )
    assert float((left - right).norm() / left.norm()) <= 2e-6
    lines = [
        json.loads((tmp_path / name / "run.json").read_text())["stages"][0]["history"]
        for name in ("one", "two")
    ]
    for key in ("loss", "ce", "kl"):
        assert lines[0][1][key] == pytest.approx(lines[1][1][key], rel=1e-4, abs=1e-7)
    assert lines[0][1]["kl"] > 0


def test_sft_plus_learns_less_of_the_new_answers_and_drifts_less(base_folder: Path, tmp_path: Path) -> None:
    rows = [text_row(str(at), f"berita {at}", "Label: Fitnah") for at in range(6)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    ends = []
    for share in (0.01, 0.9):
        made = config(base_folder, data, epochs=None, steps=6, sft_plus={"lambda": share, "temperature": 1.0})
        ends.append(train(made, tmp_path / str(share)).stages[0].history[-1])
    assert ends[1]["kl"] < ends[0]["kl"] and ends[1]["ce"] > ends[0]["ce"]


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_lambda_outside_0_to_1_is_refused(share: float, base_folder: Path, train_file: Path) -> None:
    with pytest.raises(ValueError, match="lambda"):
        config(base_folder, train_file, sft_plus={"lambda": share})


def test_trained_biases_are_refused_because_the_base_would_not_be_the_base(
    base_folder: Path, train_file: Path
) -> None:
    with pytest.raises(ValueError, match="bias: none"):
        config(base_folder, train_file, {"bias": "all"}, sft_plus={"lambda": 0.2})


def test_a_model_without_an_adapter_has_none_to_switch_off(model: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be switched off"):
        AdapterDisabledTeacher(model, model)


def test_the_setting_is_written_under_its_own_name(base_folder: Path, train_file: Path) -> None:
    made = config(base_folder, train_file, sft_plus={"lambda": 0.2})
    assert made.model_dump(mode="json")["stages"][0]["sft_plus"] == {"lambda": 0.2, "temperature": 1.0}
    assert TrainConfig.model_validate(made.model_dump(mode="json")) == made
    assert module.TABLES == 4
