"""The layers of the language model compute the same without a mask over padding, and from recorded passes.

A CPU has no graphs to replay: there the passes run the layers again, with the same memory, shapes and gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dfktrain.config.model import AdapterConfig
from dfktrain.data.collator import Collator
from dfktrain.data.packing import Packer, patch_fallbacks
from dfktrain.data.positions import PositionedCollator
from dfktrain.engines import (
    LoadedBase,
    _adapter_products,
    _body,
    adapt,
    bare,
    recorded_layers,
    trainable,
)
from dfktrain.engines._adapter_products import fused_products
from dfktrain.engines._body import difference
from dfktrain.losses.attach import score_answers
from dfktrain.losses.kl_to_base import AdapterDisabledTeacher, KLToBase, kl_to_base
from dfktrain.training import stage
from tests.helpers.models import image_row, text_row


@pytest.fixture(autouse=True)
def recordable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU counts as a GPU, whose passes run again instead of being replayed."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def tuned(model: Any) -> Any:
    made, _ = adapt(LoadedBase(model, None, "random"), AdapterConfig(rank=4, alpha=8))
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable(made):
            parameter.normal_(std=0.05)
    score_answers(made)
    return made.train()


@pytest.fixture
def batches(processor: Any, pictures: list[str]) -> list[dict[str, Tensor]]:
    """Text, pictures, both, padded and not, in two widths, some shapes twice with other positions."""
    collator = PositionedCollator(Collator(processor))
    collator.collator.multiple = 32
    texts = [text_row(str(n), "berita " * n, "Label: Netral" + " dan benar" * n) for n in (1, 2, 9)]
    seen = [
        image_row("a", pictures[:2], "berita " * 20, "Label: Fitnah"),
        image_row("c", pictures[2:3], "a red circle", "blue square"),
    ]
    made = [
        texts, seen, [*seen, texts[0]], texts[:1], [texts[1], texts[0]], texts, seen, texts[:1],
        [*reversed(texts)], [*reversed(seen)], seen[:1], seen,
    ]  # fmt: skip
    return [collator(rows) for rows in made]


def gradients(model: Any, batches: list[dict[str, Tensor]], accumulate: int = 1) -> list[Tensor]:
    """Return the loss of each batch, and the flat gradient after every `accumulate` of them."""
    found = []
    for at, batch in enumerate(batches):
        if at % accumulate == 0:
            model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        found.append(loss.detach())
        if at % accumulate == accumulate - 1:
            found.append(
                torch.cat([each.grad.flatten() for _, each in trainable(model) if each.grad is not None])
            )
    return found


def assert_near(ours: list[Tensor], right: list[Tensor], limit: float = 1e-5) -> None:
    assert len(ours) == len(right)
    for a, b in zip(ours, right, strict=True):
        assert float((a - b).norm() / b.norm()) <= limit


def unmasked(model: Any) -> ExitStack:
    stack = ExitStack()
    assert _body.without_mask(stack, bare(model)) == "on"
    return stack


def test_without_a_mask_the_loss_and_gradient_of_padded_batches_are_the_same(
    tuned: Any, batches: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(bool((batch["attention_mask"] == 0).any()) for batch in batches)
    right = gradients(tuned, batches)
    layer = bare(tuned).model.language_model.layers[0]
    masks: list[Any] = []
    layer.register_forward_pre_hook(
        lambda _, __, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    with unmasked(tuned):
        assert_near(gradients(tuned, batches), right)
    assert set(masks) == {None}


@pytest.mark.parametrize("call", ["evaluation", "generation"])
def test_a_mask_stays_where_rows_may_be_padded_on_the_left(
    tuned: Any, batches: list[dict[str, Tensor]], call: str
) -> None:
    inputs = {name: batches[0][name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    inputs = {name: value.flip(1) for name, value in inputs.items()}
    tuned.eval()

    def answer() -> Tensor:
        with torch.no_grad():
            if call == "evaluation":
                return bare(tuned).model(**inputs, use_cache=False).last_hidden_state
            return torch.as_tensor(tuned.generate(**inputs, max_new_tokens=4, do_sample=False))

    right = answer()
    with unmasked(tuned), recorded_layers(tuned, True, {}):
        assert torch.equal(answer(), right)


@pytest.mark.parametrize(("accumulate", "products"), [(1, False), (2, True)])
def test_recorded_passes_have_the_loss_and_gradient_of_the_layers(
    tuned: Any, batches: list[dict[str, Tensor]], accumulate: int, products: bool
) -> None:
    right = gradients(tuned, batches, accumulate)
    found: dict[str, str] = {}
    with ExitStack() as stack:
        if products:
            assert stack.enter_context(fused_products(tuned, bare(tuned))) == "on"
        stack.enter_context(recorded_layers(tuned, True, found))
        assert_near(gradients(tuned, batches, accumulate), right)
        assert_near(gradients(tuned, batches, accumulate), right)
    assert found == {"CUDA graphs": "on"}
    assert_near(gradients(tuned, batches, accumulate), right)


def test_a_second_forward_pass_before_the_backward_pass_is_refused(
    tuned: Any, batches: list[dict[str, Tensor]]
) -> None:
    """Recordings share their memory: the first pass would get the gradient of the second."""
    with recorded_layers(tuned, True, {}):
        for _ in range(2):
            gradients(tuned, batches[:2])
        first, second = (tuned(**batch).loss for batch in batches[:2])
        with pytest.raises(RuntimeError, match="cuda_graphs: false"):
            first.backward()
        second.backward()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Return a list that gets every recording."""
    made: list[tuple[str, tuple[int, ...]]] = []
    start = _body.Passes.__init__

    def note(self: Any, run: Any, parameters: Any, trains: bool, states: Tensor, positions: Any) -> None:
        made.append((_body.TRAIN if trains else _body.TEACHER, tuple(states.shape[:2])))
        start(self, run, parameters, trains, states, positions)

    monkeypatch.setattr(_body.Passes, "__init__", note)
    return made


def test_a_shape_is_recorded_once_when_it_comes_a_second_time(
    tuned: Any, batches: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    with recorded_layers(tuned, True, {}):
        gradients(tuned, batches[:5])
        before = list(made)
        for _ in range(2):
            gradients(tuned, batches)
    shapes = {(tuple(batch["input_ids"].shape), "image_grid_thw" in batch) for batch in batches}
    assert before == [] and len(made) == len(shapes)


def test_no_more_shapes_are_recorded_than_there_is_room_for(
    tuned: Any, batches: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    monkeypatch.setattr(_body, "MOST", 2)
    right = gradients(tuned, batches)
    with recorded_layers(tuned, True, {}):
        for _ in range(2):
            assert_near(gradients(tuned, batches), right)
    assert len(made) == 2


def test_the_teacher_of_sft_plus_has_passes_of_its_own(
    tuned: Any, batches: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    net = bare(tuned)
    with kl_to_base(net, KLToBase(AdapterDisabledTeacher(tuned, net), 0.4, 2.0)):
        right = gradients(tuned, batches)
        with recorded_layers(tuned, True, {}):
            for _ in range(2):
                assert_near(gradients(tuned, batches), right)
    kinds = [kind for kind, _ in made]
    assert kinds.count(_body.TRAIN) == kinds.count(_body.TEACHER) > 0


def test_a_recording_that_fails_leaves_the_layers_as_they_are_and_says_why(
    tuned: Any, batches: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(_body.Passes, "__init__", fails)
    right = gradients(tuned, batches)
    found: dict[str, str] = {}
    with recorded_layers(tuned, True, found):
        for _ in range(2):
            assert_near(gradients(tuned, batches), right)
    assert found["CUDA graphs"] == "a recording failed (operation not permitted when stream is capturing)"


def test_packed_rows_run_the_layers_as_they_are(
    tuned: Any, processor: Any, batches: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    patch_fallbacks("qwen3_5")
    rows = [text_row(str(n), "berita " * n, "Label: Netral") for n in (1, 5)]
    packed = [Packer(Collator(processor))(rows)] * 3
    right = gradients(tuned, packed)
    with unmasked(tuned), recorded_layers(tuned, True, {}):
        assert_near(gradients(tuned, packed), right)
    assert made == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.requires_grad_(False), "nothing is trained in the layers"),
        (lambda model: model.requires_grad_(True), "the base's weights are trained too"),
        (lambda model: model.gradient_checkpointing_enable(), "layers are recomputed in the backward pass"),
        (lambda model: setattr(bare(model).config.text_config, "attention_dropout", 0.1), "there is dropout"),
    ],
)
def test_layers_that_cannot_be_recorded_run_as_they_are(
    tuned: Any, batches: list[dict[str, Tensor]], change: Callable[[Any], Any], reason: str
) -> None:
    change(tuned)
    found: dict[str, str] = {}
    with recorded_layers(tuned, True, found):
        assert bool(tuned(**batches[0]).loss > 0)
    assert found == {"CUDA graphs": reason}


def test_a_recording_may_differ_as_much_as_the_layers_do_from_themselves() -> None:
    first, exact = torch.ones(8), torch.ones(8)
    near, far = first * 1.03, first * 1.2
    assert difference([first, None, exact], [first, None, exact], [first, None, exact]) is None
    assert difference([first, exact], [first * 1.02, exact], [near, exact]) is None
    assert "the gradient of the inputs differ" in str(
        difference([exact, first], [exact, first], [exact, near])
    )
    assert "by 2.0e-01, the layers' from themselves by 3.0e-02" in str(difference([first], [near], [far]))
    assert difference([first], [first], [first * float("nan")])


@pytest.mark.parametrize(
    ("asked", "memory", "processes", "records"),
    [
        (None, 80, 1, True),
        (None, 24, 1, False),
        (None, 80, 2, False),
        (True, 24, 2, True),
        (False, 80, 1, False),
    ],
)
def test_layers_are_recorded_by_default_where_there_is_room(
    asked: bool | None, memory: int, processes: int, records: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = SimpleNamespace(device=torch.device("cuda"))
    run = SimpleNamespace(
        config=SimpleNamespace(cuda_graphs=asked, fused_layers=None),
        engine="transformers",
        model=SimpleNamespace(parameters=lambda: iter([place])),
    )
    card = SimpleNamespace(total_memory=memory * 1024**3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(stage, "process_count", lambda: processes)
    assert stage._records(run, text_only=True) is records
    assert stage._records(run, text_only=False) is bool(asked)


def test_without_a_gpu_the_reason_is_told(tuned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    found: dict[str, str] = {}
    with recorded_layers(tuned, True, found):
        pass
    assert found == {"CUDA graphs": "no GPU"}
    with recorded_layers(tuned, False, found := {}):
        assert found == {}


@pytest.mark.parametrize("multiple", [1, 16, 64])
def test_batches_are_as_wide_as_the_next_multiple(processor: Any, multiple: int) -> None:
    collator = Collator(processor)
    collator.multiple = multiple
    rows = [text_row(str(n), "berita " * n, "Label: Netral") for n in (1, 5, 40)]
    for some in (rows, rows[:1]):
        longest = max(len(collator.encode(row)) for row in some)
        batch = collator(some)
        width = batch["input_ids"].shape[1]
        assert width % multiple == 0 and longest <= width < longest + multiple
        assert int(batch["attention_mask"].sum()) == sum(len(collator.encode(row)) for row in some)


def test_rounded_adapter_weights_are_made_anew_in_the_passes(
    tuned: Any, batches: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph would go on reading those of the step in which it was recorded."""
    made: list[bool] = []
    refresh = _adapter_products._Rounded.refresh

    def noted(self: Any) -> None:
        made.append(True)
        refresh(self)

    monkeypatch.setattr(_adapter_products._Rounded, "refresh", noted)
    with fused_products(tuned, bare(tuned)), recorded_layers(tuned, True, {}):
        counts = []
        for _ in range(3):
            made.clear()
            tuned(**batches[0])
            counts.append(len(made))
    assert counts == [1, 2, 2]  # the first call runs the layers as they are
