"""Blend LoRA adapters of one base into new adapters, and score the blends.

How it works: `sphere` computes the exact blend of every layer; here it is cut to one rank, written as an
adapter, and compared with the exact blend.

Guarantees:
    - Ranks, alphas and rsLoRA of the adapters may differ; the blend has no loss unless a rank is given.
    - The error of the written factors is measured against the exact blend and reported.
    - An adapter folder appears whole or not at all, and a blend that is there already is not made again."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dfkdata.common import json_files
from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import folder_sha256
from dfkeval.models import metadata
from dfkeval.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from dfktrain.merging.sphere import BlendedLayer, blend_layers
from dfktrain.weights import lora

REPORT = "slerp-report.json"
"""File with all blends of one call, in its output folder."""

_RECORD = "slerp.json"
_SHARED_FACTS = ("schema", "form", "system_prompt", "tools", "template_sha256")


@dataclass(frozen=True)
class Blend:
    """One written blend.

    Attributes:
        weights: Shares of the adapters; they sum to 1.
        adapter: Folder of the blend.
        rank: Rank of the written factors.
        exact_rank: Smallest rank without loss.
        error: Relative Frobenius error over all layers.
        worst_error: Relative Frobenius error of the layer with the largest one.
        worst_layer: Name of that layer.
        angles: Smallest, mean and largest angle in degrees between the layers of the first two adapters.
        metrics: Metrics of the evaluation by name, each with value, low and high; None without one.
    """

    weights: tuple[float, ...]
    adapter: Path
    rank: int
    exact_rank: int
    error: float
    worst_error: float
    worst_layer: str
    angles: tuple[float, float, float]
    metrics: dict[str, dict[str, float]] | None = None


Score = Callable[[Path, Path], dict[str, dict[str, float]]]
"""(adapter, folder of the evaluation run) -> metrics by name, each with value, low and high."""


def slerp_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    weights: Sequence[Sequence[float]],
    *,
    rank: int | None = None,
    score: Score | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Blend, ...]:
    """Write the blend of adapters at each of the given weights.

    Args:
        adapters: Folders of two or more LoRA adapters of one base.
        out: Folder of the blend; for several weights it holds one folder each, such as 0.25-0.75.
        weights: For every blend one number for each adapter; only their ratios count.
        rank: Rank of the written factors; None takes the smallest without loss.
        score: Evaluates each written blend.
        say: Receives a line for each step.

    Returns:
        The blends in the order of `weights`; also written to `out`/slerp-report.json.

    Raises:
        ConfigError: The adapters do not belong together or cannot be blended, or an argument is wrong.
    """
    sources = [_read(Path(folder)) for folder in adapters]
    if len(sources) < 2:
        raise ConfigError("slerp blends two or more adapters; give --slerp at least twice")
    _check_same_family(sources)
    bases = sorted({Path(lora.full_precision(source.base)).name for source in sources if source.base})
    if len(bases) > 1:
        say(f"note: the adapters name different bases, of equal shapes where they meet: {', '.join(bases)}")
    points = [normalised(point, len(sources)) for point in weights]
    if rank is not None and rank < 1:
        raise ConfigError(f"rank {rank}: give 1 or more, or leave it out for a blend without loss")
    out = Path(out)
    folders = [out] if len(points) == 1 else [out / name(point) for point in points]
    blends: list[Blend] = []
    for point, folder in zip(points, folders, strict=True):
        say(f"blend {name(point)}")
        blend = _blend(sources, point, folder, rank)
        metrics = score(folder, _evaluation_folder(out, folder)) if score is not None else None
        blends.append(Blend(**(asdict(blend) | {"metrics": metrics, "adapter": folder})))
    _write_report(out, sources, blends)
    return tuple(blends)


def _evaluation_folder(out: Path, folder: Path) -> Path:
    return out / "eval" if folder == out else out / "eval" / folder.name


def name(weights: Sequence[float]) -> str:
    """Return the name of a blend's folder, such as `0.25-0.75`."""
    return "-".join(f"{weight:.4g}" for weight in weights)


def grid(adapters: int, points: int) -> list[tuple[float, ...]]:
    """Return all weights in even steps between the adapters.

    Args:
        adapters: Number of adapters.
        points: Number of blends between two adapters, both ends included.

    Returns:
        Weights that sum to 1; for two adapters they go from the second to the first.

    Raises:
        ConfigError: `points` is smaller than 2.
    """
    if points < 2:
        raise ConfigError(f"grid {points}: give 2 or more points an edge")
    steps = points - 1
    combinations = itertools.product(range(steps + 1), repeat=adapters)
    return [tuple(at / steps for at in numbers) for numbers in combinations if sum(numbers) == steps]


def normalised(weights: Sequence[float], count: int) -> tuple[float, ...]:
    """Return the weights divided by their sum.

    Raises:
        ConfigError: There is not one weight for each of `count` adapters, one is negative, or all are 0.
    """
    if len(weights) != count:
        raise ConfigError(f"{len(weights)} weights for {count} adapters; give one for each")
    total = sum(weights)
    if not 0 < total < math.inf or any(not weight >= 0 for weight in weights):
        raise ConfigError(f"weights {list(weights)}: give numbers of 0 or more, one of them above 0")
    return tuple(weight / total for weight in weights)


def _read(folder: Path) -> lora.Adapter:
    adapter = lora.read(folder)
    if any(factors.magnitude for factors in adapter.factors.values()):
        raise ConfigError(
            f"adapter {folder}: DoRA scales rows as well, and its change is no product of two thin matrices; "
            "blend LoRA adapters"
        )
    if adapter.replaced or any(factors.bias for factors in adapter.factors.values()):
        raise ConfigError(
            f"adapter {folder}: holds whole tensors (biases, modules_to_save), which have no direction to "
            "blend; train it without them"
        )
    return adapter


def _check_same_family(adapters: Sequence[lora.Adapter]) -> None:
    """Raise unless base, prompt, template and schema of all adapters agree, as far as they are recorded."""
    first, others = adapters[0], adapters[1:]
    card = metadata.read(first.folder)
    for other in others:
        other_card = metadata.read(other.folder)
        if card is not None and other_card is not None:
            facts = {key: getattr(other_card, key) for key in _SHARED_FACTS}
            facts["thinking"] = other_card.thinking
            metadata.check_matches(card, f"{first.folder}/{metadata.NAME}", facts)
            if card.base and other_card.base and card.base.shapes_sha256 != other_card.base.shapes_sha256:
                raise ConfigError(f"{first.folder} and {other.folder} were trained on different base models")
        _check_shapes(first, other)


def _check_shapes(first: lora.Adapter, second: lora.Adapter) -> None:
    for module in first.factors.keys() & second.factors.keys():
        shapes = first.shape(module), second.shape(module)
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"{module} is {shapes[0]} in {first.folder} and {shapes[1]} in {second.folder}: the adapters "
                "have different base models"
            )


def _blend(
    adapters: Sequence[lora.Adapter], weights: tuple[float, ...], folder: Path, rank: int | None
) -> Blend:
    """Write one blend, unless the folder holds it already."""
    made_from = {
        "weights": list(weights),
        "rank": rank,
        "adapters": [folder_sha256(adapter.folder) for adapter in adapters],
    }
    record = json_files.read_json_or_none(folder / _RECORD)
    if record is not None and record["made_from"] == made_from:
        angles = tuple(record["point"]["angles"])
        return Blend(**(record["point"] | {"adapter": folder, "weights": weights, "angles": angles}))
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: holds something else than this blend; name a new folder with --out")
    layers = list(blend_layers(adapters, weights))
    exact = max(1, *(layer.needed_rank for layer in layers))
    cut = exact if rank is None else min(rank, exact)
    tensors, errors = _cut(layers, cut)
    blend = _measured(folder, weights, cut, exact, errors, [layer.angle for layer in layers])
    point = asdict(blend) | {"adapter": folder.name}
    _write_adapter(adapters[0], folder, tensors, cut, {"made_from": made_from, "point": point})
    return blend


def _cut(
    layers: Sequence[BlendedLayer], rank: int
) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """Return (the adapter's tensors, squared norms of what each layer misses and of the whole layer)."""
    tensors: dict[str, Tensor] = {}
    errors: dict[str, tuple[float, float]] = {}
    for layer in layers:
        a, b = layer.cut(rank)
        prefix = f"base_model.model.{layer.module}"
        tensors |= {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
        errors[layer.module] = layer.error(a, b)
    return tensors, errors


def _measured(
    folder: Path,
    weights: tuple[float, ...],
    rank: int,
    exact_rank: int,
    errors: dict[str, tuple[float, float]],
    angles: Sequence[float | None],
) -> Blend:
    missed = sum(lost for lost, _ in errors.values())
    total = sum(size for _, size in errors.values())
    relative = {layer: (lost / size) ** 0.5 for layer, (lost, size) in errors.items() if size}
    worst = max(relative, key=lambda layer: relative[layer], default="")
    known = [angle for angle in angles if angle is not None] or [0.0]
    return Blend(
        weights=weights,
        adapter=folder,
        rank=rank,
        exact_rank=exact_rank,
        error=(missed / total) ** 0.5 if total else 0.0,
        worst_error=relative.get(worst, 0.0),
        worst_layer=worst,
        angles=(min(known), sum(known) / len(known), max(known)),
    )


def _write_adapter(
    first: lora.Adapter, folder: Path, tensors: dict[str, Tensor], rank: int, record: dict[str, Any]
) -> None:
    """Write the adapter folder, whole or not at all."""
    from safetensors.torch import save_file

    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    modules = sorted({key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors})
    settings = {key: first.config.get(key) for key in ("task_type", "base_model_name_or_path")}
    settings |= {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": modules}
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(contiguous, str(part / WEIGHTS_FILE), {"format": "pt"})
    json_files.write_json(part / CONFIG_FILE, settings, floats="repr")
    json_files.write_json(part / _RECORD, record, floats="repr")
    card = metadata.read(first.folder)
    if card is not None:
        metadata.write(part, card)
    if folder.is_dir():
        folder.rmdir()
    part.replace(folder)


def _write_report(out: Path, adapters: Sequence[lora.Adapter], blends: Sequence[Blend]) -> None:
    sources = [{"name": adapter.folder.name, "sha256": folder_sha256(adapter.folder)} for adapter in adapters]
    points = [asdict(blend) | {"adapter": blend.adapter.name} for blend in blends]
    json_files.write_json(out / REPORT, {"format": 1, "adapters": sources, "points": points}, floats="repr")


def scorer(path: Path) -> Score:
    """Return a `Score` that runs the evaluation of a YAML file with each blend as its adapter.

    Raises:
        ConfigError: The file is no evaluation, or its backend takes no adapter.
    """
    from dfkeval.evaluation import evaluate
    from dfkeval.runs import config as configs

    settings = configs.read(path)
    if not hasattr(settings.backend, "adapter"):
        raise ConfigError(
            f"{path}: the backend {settings.kind} takes no adapter; use one that does, such as transformers"
        )

    def score(adapter: Path, folder: Path) -> dict[str, dict[str, float]]:
        backend = settings.backend.model_copy(update={"adapter": adapter.absolute()})
        run = evaluate.evaluate(settings.model_copy(update={"backend": backend}), folder)
        metrics: dict[str, dict[str, float]] = json.loads(json.dumps(run.summary["metrics"]))
        return metrics

    return score
