"""Blends of adapters are made of the weight change, whatever factors it is written in, and say what a cut
costs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import ConfigError
from dfkeval.models import adapters, metadata
from dfktrain.cli import app
from dfktrain.merging import slerp
from dfktrain.merging.slerp import grid, slerp_adapters
from dfktrain.weights import lora
from tests.helpers.adapters import adapter, renamed, tensors_of
from tests.helpers.models import write_rows

LAYER = "model.language_model.layers.3.mlp.up_proj"


@pytest.fixture(scope="module")
def pair(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Rank 4 on some layers; rank 6, rsLoRA, on others and on some of the same."""
    root = tmp_path_factory.mktemp("pair")
    one = adapter(base_folder, root / "one", seed=1, modules="layers.3")
    two = adapter(base_folder, root / "two", seed=2, modules="mlp|visual", r=6, lora_alpha=3, use_rslora=True)
    return one, two


def change(folder: Path, layer: str = LAYER) -> Any:
    """s B A written out, fp64; zeros where the adapter leaves the layer alone."""
    found = lora.read(folder)
    factors = found.factors[adapters.plain_name(layer)]
    return factors.scale * found.tensor(factors.b).double() @ found.tensor(factors.a).double()


def dense_slerp(one: Any, two: Any, share: float) -> Any:
    """The textbook formula on unit vectors, the length linear."""
    import torch

    sizes = one.norm(), two.norm()
    cosine = float((one * two).sum() / (sizes[0] * sizes[1]))
    angle = math.acos(cosine)
    parts = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    length = (1 - share) * sizes[0] + share * sizes[1]
    return length * (parts[0] * one / sizes[0] + parts[1] * two / sizes[1]).to(torch.float64)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_blend_of_two_is_slerp_of_the_weight_change_without_loss(
    pair: tuple[Path, Path], tmp_path: Path, share: float
) -> None:
    (point,) = slerp_adapters(pair, tmp_path / "out", [(1 - share, share)])
    wanted = dense_slerp(change(pair[0]), change(pair[1]), share)
    found = change(tmp_path / "out")
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6
    assert point.error < 1e-6 and point.rank == point.exact_rank == {0.0: 4, 1.0: 6}.get(share, 10)


def test_the_blend_does_not_depend_on_how_a_change_is_factorised(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Signs and rotations between A and B leave the change alone; a blend of A and B apart would not."""
    import torch
    from safetensors.torch import save_file

    twin = renamed(pair[0], tmp_path / "twin", str)
    tensors = tensors_of(twin)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3)))[0]
    turned = {
        name: (-turn.T @ tensor if "lora_A" in name else -tensor @ turn).contiguous()
        for name, tensor in tensors.items()
    }
    save_file(turned, str(twin / adapters.WEIGHTS_FILE))
    slerp_adapters(pair, tmp_path / "one", [(0.4, 0.6)])
    slerp_adapters((twin, pair[1]), tmp_path / "two", [(0.4, 0.6)])
    one, two = change(tmp_path / "one"), change(tmp_path / "two")
    assert float((one - two).norm() / one.norm()) < 1e-5
    slerp_adapters((twin, pair[0]), tmp_path / "same", [(0.5, 0.5)])
    same = change(pair[0])
    assert float((change(tmp_path / "same") - same).norm() / same.norm()) < 1e-5


def test_a_layer_that_one_adapter_leaves_alone_is_blended_with_zero(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    slerp_adapters(pair, tmp_path / "out", [(0.25, 0.75)])
    layer = "model.visual.blocks.0.attn.qkv"
    wanted = 0.75 * change(pair[1], layer)
    assert float((change(tmp_path / "out", layer) - wanted).norm() / wanted.norm()) < 1e-6


def test_a_cut_is_the_best_of_its_rank_and_its_error_is_reported(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    import torch

    (point,) = slerp_adapters(pair, tmp_path / "out", [(0.5, 0.5)], rank=3)
    wanted = dense_slerp(change(pair[0]), change(pair[1]), 0.5)
    values = torch.linalg.svdvals(wanted)
    best = float((values[3:].square().sum() / values.square().sum()).sqrt())
    found = float((change(tmp_path / "out") - wanted).norm() / wanted.norm())
    assert found == pytest.approx(best, rel=1e-4) and 0.05 < found <= point.worst_error
    assert point.rank == 3 and point.exact_rank == 10 and 0 < point.error <= point.worst_error
    written = json.loads((tmp_path / "out" / "slerp-report.json").read_text(encoding="utf-8"))
    assert (
        written["points"][0]["worst_layer"]
        == point.worst_layer
        in lora.read(tmp_path / "out").config["target_modules"]
    )


def test_the_mean_of_three_has_no_tangent_left_and_does_not_depend_on_the_order(
    base_folder: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    three = [*pair, adapter(base_folder, tmp_path / "three", seed=5, modules="mlp")]
    slerp_adapters(three, tmp_path / "abc", [(1, 2, 3)])
    slerp_adapters(three[::-1], tmp_path / "cba", [(3, 2, 1)])
    one, two = change(tmp_path / "abc"), change(tmp_path / "cba")
    assert float((one - two).norm() / one.norm()) < 1e-6
    mean = one / one.norm()
    units = [found / found.norm() for found in map(change, three)]
    tangent = sum(
        weight
        * (angle := math.acos(float((unit * mean).sum())))
        / math.sin(angle)
        * (unit - math.cos(angle) * mean)
        for weight, unit in zip((1, 2, 3), units, strict=True)
    )
    assert float(tangent.norm()) < 1e-5
    assert float(one.norm()) == pytest.approx(
        sum(w * float(change(f).norm()) for w, f in zip((1, 2, 3), three, strict=True)) / 6
    )


def test_the_blend_loads_and_changes_the_model(
    base_folder: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from dfkeval.models import loader

    slerp_adapters(pair, tmp_path / "out", [(0.5, 0.5)])
    loaded = loader.load(base_folder, adapter=tmp_path / "out", device="cpu")
    assert loaded.info["adapter"] == "out"


def test_a_grid_covers_the_edge_and_is_resumed(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert grid(2, 3) == [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    assert len(grid(3, 5)) == 15 and all(sum(each) == 1 for each in grid(3, 5))
    asked: list[str] = []

    def score(folder: Path, run: Path) -> dict[str, dict[str, float]]:
        asked.append(f"{folder.name} {run.parent.name}")
        return {"labels.accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}

    points = slerp_adapters(pair, tmp_path / "out", grid(2, 3), score=score)
    assert asked == ["0-1 eval", "0.5-0.5 eval", "1-0 eval"]
    first = (tmp_path / "out" / "0.5-0.5" / adapters.WEIGHTS_FILE).stat().st_mtime_ns
    again = slerp_adapters(pair, tmp_path / "out", grid(2, 3), score=score)
    assert (
        again == points and (tmp_path / "out" / "0.5-0.5" / adapters.WEIGHTS_FILE).stat().st_mtime_ns == first
    )
    with pytest.raises(ConfigError, match="holds something else than this blend"):
        slerp_adapters(pair, tmp_path / "out", grid(2, 3), rank=2)


def test_what_cannot_be_blended_is_refused_by_name(
    base_folder: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    dora = adapter(base_folder, tmp_path / "dora", modules="layers.3", use_dora=True)
    biased = adapter(base_folder, tmp_path / "biased", modules="visual", bias="all")
    asked = renamed(pair[0], tmp_path / "asked", str)
    metadata.write(asked, metadata.ModelMetadata(schema="caption"))
    other = renamed(pair[0], tmp_path / "other", str)
    metadata.write(other, metadata.ModelMetadata(schema="dfk_label"))
    for pairs, weights, message in (
        ((pair[0], dora), (1, 1), "DoRA scales rows as well"),
        ((pair[0], biased), (1, 1), "holds whole tensors"),
        ((asked, other), (1, 1), "schema was 'caption' in training and is 'dfk_label' here"),
        ((pair[0],), (1,), "two or more adapters"),
        (pair, (1, 1, 1), "3 weights for 2 adapters"),
        (pair, (-1, 2), "numbers of 0 or more"),
        (pair, (0, 0), "numbers of 0 or more"),
        (pair, (float("inf"), 1), "numbers of 0 or more"),
        (pair, (1e308, 1e308), "numbers of 0 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            slerp_adapters(pairs, tmp_path / "out", [weights])
    assert not (tmp_path / "out").exists()


def test_the_command_scores_every_blend(base_folder: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    row = {
        "id": "a",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "berita ini"}]}],
        "images": [],
        "meta": {"group": "a", "schema": "dfk_label", "gold": {"label": "fitnah", "analisis": "x"}},
    }
    write_rows(tmp_path / "test.jsonl", [row])
    (tmp_path / "eval.yaml").write_text(
        f"data: test.jsonl\nschema: dfk_label\nbackend: {{kind: transformers, model: {base_folder}}}\n"
        "metrics: [validity]\nsampling: {max_new_tokens: 3}\n",
        encoding="utf-8",
    )
    blends = [text for folder in pair for text in ("--slerp", str(folder))]
    line = [
        "merge",
        *blends,
        "--grid",
        "2",
        "--eval",
        str(tmp_path / "eval.yaml"),
        "--out",
        str(tmp_path / "out"),
    ]
    found = CliRunner().invoke(app.app, line, catch_exceptions=False)
    assert found.exit_code == 0
    assert found.stdout.count("validity.schema_valid 0.000") == 2 and "rank 4 of 4" in found.stdout
    written = json.loads((tmp_path / "out" / slerp.REPORT).read_text(encoding="utf-8"))
    assert {"value", "low", "high"} <= written["points"][0]["metrics"]["validity.schema_valid"].keys()
    assert (tmp_path / "out" / "eval" / "1-0" / "summary.json").is_file()
