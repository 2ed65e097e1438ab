"""The traps of training these models: a table of each and the test that keeps it shut, and the tests of those
that have no other home (heads, kernels, servers, telemetry)."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from dfktrain import TrainConfig
from dfktrain.cli._common import quiet
from dfktrain.training.preflight import preflight
from tests.helpers.places import ROOT

TRAPS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "micro-batches are averaged, so a gradient depends on how the batch was split",
        (
            "test_run_gradients::test_the_gradient_of_a_step_does_not_depend_on_how_it_is_split",
            "test_run_ranks::test_two_ranks_take_the_same_step_as_one",
        ),
    ),
    2: (
        "an empty think block carries loss",
        ("test_masking::test_an_empty_think_block_carries_no_loss_and_a_trace_does",),
    ),
    3: (
        "prompt and image tokens carry loss",
        ("test_masking::test_the_mask_equals_the_slow_one_on_the_whole_grid",),
    ),
    4: (
        "the stop token carries no loss, so the model never stops",
        ("test_masking::test_the_stop_token_carries_loss_and_the_newline_after_it_does_not",),
    ),
    5: (
        "truncation cuts images or the whole answer",
        (
            "test_collator::test_a_row_over_max_length_is_refused_with_the_ways_out",
            "test_collator::test_shortening_cuts_plain_prompt_text_only",
            "test_masking::test_a_row_with_an_empty_answer_is_refused",
        ),
    ),
    6: (
        "a None-filled image key turns a text into an image",
        ("test_collator::test_an_answer_with_a_none_filled_image_key_is_still_text",),
    ),
    7: (
        "images are resized in training and not at inference",
        ("test_collator::test_the_budget_gives_the_same_pixels_as_the_loader_at_inference",),
    ),
    8: (
        "engines read all-linear differently",
        (
            "test_targets::test_presets_resolve_to_one_explicit_list",
            "test_contract::test_an_adapter_on_other_modules_than_asked_for_stops_the_run",
        ),
    ),
    9: (
        "packed sequences see each other",
        (
            "test_packing::test_packed_loss_and_gradient_equal_lone_ones",
            "test_packing::test_without_our_path_the_same_batch_leaks",
            "test_packing::test_where_packing_is_refused_padded_batches_are_used_and_the_run_says_so",
        ),
    ),
    10: (
        "without mm_token_type_ids padding is not neutral",
        (
            "test_run_gradients::test_padding_side_changes_neither_loss_nor_gradient",
            "test_collator::test_a_mixed_batch_holds_only_arguments_of_forward",
        ),
    ),
    11: (
        "max_pixels alone is ignored, and the processor's size is shared by all",
        ("test_collator::test_the_pixel_budget_is_kept_and_touches_no_shared_state",),
    ),
    12: (
        "an adapter of the text-only class has no effect on the whole model",
        (
            "test_engines_families::test_a_vision_language_checkpoint_is_refused_as_a_language_model",
            "test_run_adapters::test_an_adapter_that_changes_nothing_stops_the_run",
        ),
    ),
    13: (
        "saving through the library drops mtp tensors and rounds fp32 ones",
        (
            "test_run_adapters::test_full_fine_tuning_keeps_the_tensors_that_the_class_does_not_load",
            "test_merge::test_what_the_adapter_leaves_alone_is_byte_identical_mtp_and_fp32_gates_included",
        ),
    ),
    14: (
        "rejection sampling scrambles the patches of images",
        ("test_rft::test_every_kept_sample_carries_its_own_images",),
    ),
    15: (
        "a text rank beside an image rank hangs under gradient checkpointing",
        ("test_run_ranks::test_a_text_rank_beside_an_image_rank_does_not_hang",),
    ),
    16: (
        "tools and chat_template_kwargs are lost on the way",
        (
            "test_collator::test_a_tool_row_keeps_its_tools",
            "test_masking::test_tools_reach_the_prompt_and_the_call_is_the_answer",
            "test_masking::test_a_template_option_that_the_template_does_not_read_is_refused",
        ),
    ),
    17: (
        "an adapter on the tied head changes one weight of two",
        ("test_targets::test_an_adapter_on_the_tied_head_is_refused",),
    ),
    18: (
        "a fast kernel computes wrong gradients on some GPUs, or refuses",
        (
            "test_kernels::test_a_fast_kernel_with_a_wrong_gradient_stops_the_run",
            "test_kernels::test_a_kernel_with_a_wrong_gradient_is_seen",
            "test_kernels::test_the_kernel_report_says_where_fla_refuses_hopper",
        ),
    ),
    19: (
        "the loss is right and the gradient zero",
        ("test_progress::test_a_gradient_of_zero_stops_the_run",),
    ),
    20: (
        "fp16 gives NaN gradients, bf16 adapters lose their steps",
        (
            "test_run::test_a_contradiction_is_refused_and_named",
            "test_contract::test_precision_auto_is_bf16_only_where_it_is_native",
            "test_run_adapters::test_a_run_in_bf16_keeps_fp32_adapters_and_follows_the_fp32_run",
        ),
    ),
    21: (
        "servers drop parts of an adapter without a word",
        ("test_training_traps::test_what_servers_drop_from_an_adapter_is_said_before_training",),
    ),
    22: (
        "the validation loss is a mean of batch means",
        ("test_run::test_the_validation_loss_is_weighted_by_tokens",),
    ),
    23: (
        "activations are cast to fp32 and back for every adapter",
        ("test_run_adapters::test_in_bf16_no_activation_is_cast_to_fp32_for_an_adapter",),
    ),
    24: (
        "length grouping fails on rows with images; libraries call home",
        (
            "test_run::test_a_length_grouped_epoch_holds_rows_with_images",
            "test_training_traps::test_the_command_turns_telemetry_off",
        ),
    ),
}
"""Number -> (what goes wrong, the tests). Traps 13 and 14 belong to merging and rejection sampling."""


def test_every_trap_of_the_core_has_its_tests() -> None:
    """A renamed or deleted test is missed here."""
    folder = ROOT / "tests"
    written = {
        f"{path.stem}::{node.name}"
        for path in folder.rglob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    named = [name for _, names in TRAPS.values() for name in names]
    assert [name for name in named if name not in written] == []
    assert sorted(TRAPS) == list(range(1, 25))
    assert all(names for _, names in TRAPS.values())


def test_what_servers_drop_from_an_adapter_is_said_before_training(
    base_folder: Path, train_file: Path
) -> None:
    def notes(target: str) -> str:
        stage = {"name": "s", "data": [str(train_file)]}
        made = {"model": {"name": str(base_folder)}, "adapter": {"target_modules": target}, "stages": [stage]}
        return " ".join(preflight(TrainConfig.model_validate(made)).notes)

    assert "vision tower" in notes("all") and "linear_attn" in notes("all")
    assert "vision tower" not in notes("language") and "linear_attn" in notes("language")
    assert notes("servable") == ""


def test_the_command_turns_telemetry_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    quiet()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
