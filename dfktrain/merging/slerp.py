"""Adapters of one base, blended on the sphere: what lies between two or more fine-tunings.

Strategy: the change of a layer is one vector, s B A written out. Its direction goes along the great circle
between the adapters' directions and its length is interpolated linearly, layer by layer. A and B are never
blended apart: the same change has many factorisations, whose blend would depend on which one training
happened to find. The blend of two is spherical linear interpolation; of more, the weighted mean on the sphere
(the point whose weighted sum of great-circle tangents is zero), which for two is the same and does not depend
on the order. All of it happens in the span of the adapters, so a Gram matrix of inner products (each from the
factors alone) decides the coefficients, and the blend is again a product of two thin matrices: exact at the
sum of the ranks, else cut by its singular values. Promises: ranks, alphas and rsLoRA may differ; the error of
the written factors is measured against the exact blend and reported; a layer that only some adapters change
is blended with zero."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkdata.common.errors import ConfigError
from dfkeval.models import loader
from dfkeval.models import metadata as cards
from dfktrain.training import manifest
from dfktrain.weights import lora

REPORT = "slerp-report.json"
LOSSLESS = 1e-6
"""Singular values below this share of a layer's largest are rounding of the stored factors, not rank."""

_OPPOSITE = 1e-4


@dataclass(frozen=True)
class Blend:
    """One blend. weights: of the adapters, they sum to 1. rank: of the written factors. exact_rank: what no
    cut needs.

    error: relative Frobenius error over all layers; worst_error, worst_layer: the layer with the largest.
    angles: smallest, mean and largest angle in degrees between the first two adapters' layers. metrics: of
    the evaluation."""

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
"""(adapter, folder of the run) -> metrics by name, each with value, low, high."""


def slerp_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    weights: Sequence[Sequence[float]],
    *,
    rank: int | None = None,
    score: Score | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Blend, ...]:
    """Write the blend of `adapters` at each of `weights` as an adapter: `out` for one, `out`/0.25-0.75 for
    several.

    rank: of the written factors, None for the smallest that loses nothing. score: evaluates a written point.
    Points that are there already, of the same adapters and rank, are not made again. Raises `ConfigError` for
    adapters that do not belong together or cannot be blended."""
    parts = [_read(Path(folder)) for folder in adapters]
    if len(parts) < 2:
        raise ConfigError("slerp blends two or more adapters; give --slerp at least twice")
    _check_family(parts)
    named = sorted({Path(lora.full_precision(part.base)).name for part in parts if part.base})
    if len(named) > 1:
        say(f"note: the adapters name different bases, of equal shapes where they meet: {', '.join(named)}")
    points = [normalised(each, len(parts)) for each in weights]
    if rank is not None and rank < 1:
        raise ConfigError(f"rank {rank}: give 1 or more, or none for a blend without loss")
    out = Path(out)
    places = [out] if len(points) == 1 else [out / name(each) for each in points]
    results: list[Blend] = []
    for each, place in zip(points, places, strict=True):
        say(f"blend {name(each)}")
        point = _point(parts, each, place, rank)
        found = score(place, _run_folder(out, place)) if score is not None else None
        results.append(Blend(**(asdict(point) | {"metrics": found, "adapter": place})))
    _report(out, parts, results)
    return tuple(results)


def _run_folder(out: Path, place: Path) -> Path:
    return out / "eval" if place == out else out / "eval" / place.name


def name(weights: Sequence[float]) -> str:
    """`0.25-0.75`."""
    return "-".join(f"{each:.4g}" for each in weights)


def grid(adapters: int, points: int) -> list[tuple[float, ...]]:
    """All weights in steps of 1 / (points - 1): for two adapters `points` blends from the second to the
    first."""
    if points < 2:
        raise ConfigError(f"grid {points}: give 2 or more points an edge")
    steps = points - 1
    places = (each for each in itertools.product(range(steps + 1), repeat=adapters) if sum(each) == steps)
    return [tuple(at / steps for at in each) for each in places]


def normalised(weights: Sequence[float], count: int) -> tuple[float, ...]:
    """The weights as shares of 1. Raises `ConfigError` for another number than adapters, or a negative
    one."""
    if len(weights) != count:
        raise ConfigError(f"{len(weights)} weights for {count} adapters; give one for each")
    total = sum(weights)
    if not 0 < total < math.inf or any(not each >= 0 for each in weights):
        raise ConfigError(f"weights {list(weights)}: give numbers of 0 or more, one of them above 0")
    return tuple(each / total for each in weights)


def _read(folder: Path) -> lora.Adapter:
    adapter = lora.read(folder)
    if any(found.magnitude for found in adapter.factors.values()):
        raise ConfigError(
            f"adapter {folder}: DoRA scales rows as well, and its change is no product of two thin matrices"
        )
    if adapter.replaced or any(found.bias for found in adapter.factors.values()):
        raise ConfigError(
            f"adapter {folder}: holds whole tensors (biases, modules_to_save), which have no direction to "
            "blend"
        )
    return adapter


def _check_family(adapters: Sequence[lora.Adapter]) -> None:
    """All are of one base and were trained with one prompt, template and schema, as far as is recorded."""
    first, others = adapters[0], adapters[1:]
    card = cards.read(first.folder)
    for other in others:
        theirs = cards.read(other.folder)
        if card is not None and theirs is not None:
            asked = {
                key: getattr(theirs, key)
                for key in ("schema", "form", "system_prompt", "tools", "template_sha256")
            }
            cards.refuse_mismatch(card, f"{first.folder}/{cards.NAME}", asked | {"thinking": theirs.thinking})
            if card.base and theirs.base and card.base.shapes_sha256 != theirs.base.shapes_sha256:
                raise ConfigError(f"{first.folder} and {other.folder} were trained on different base models")
        _check_shapes(first, other)


def _check_shapes(first: lora.Adapter, other: lora.Adapter) -> None:
    ours, theirs = ({entry.name: entry.shape for entry in each.file.entries} for each in (first, other))
    for module in first.factors.keys() & other.factors.keys():
        one, two = first.factors[module], other.factors[module]
        mine, yours = (ours[one.b][0], ours[one.a][1]), (theirs[two.b][0], theirs[two.a][1])
        if mine != yours:
            raise ConfigError(
                f"{module} is {mine} in {first.folder} and {yours} in {other.folder}: other base models"
            )


def _point(
    adapters: Sequence[lora.Adapter], weights: tuple[float, ...], place: Path, rank: int | None
) -> Blend:
    mark = {
        "weights": list(weights),
        "rank": rank,
        "adapters": [loader.weights_sha256(each.folder) for each in adapters],
    }
    old = manifest.read_json(place / "slerp.json")
    if old is not None and old["made_from"] == mark:
        return Blend(
            **(old["point"] | {"adapter": place, "weights": weights, "angles": tuple(old["point"]["angles"])})
        )
    if place.exists() and any(place.iterdir()):
        raise ConfigError(f"{place}: holds something else than this blend; name a new folder with --out")
    layers = list(_layers(adapters, weights))
    exact = max(1, *(layer.needed for layer in layers))
    wanted = exact if rank is None else min(rank, exact)
    tensors: dict[str, Tensor] = {}
    errors: dict[str, tuple[float, float]] = {}
    for layer in layers:
        a, b = layer.cut(wanted)
        home = f"base_model.model.{layer.spelled}"
        tensors |= {f"{home}.lora_A.weight": a, f"{home}.lora_B.weight": b}
        errors[layer.spelled] = layer.error(a, b)
    point = _measured(place, weights, wanted, exact, errors, [layer.angle for layer in layers])
    _write(
        adapters[0],
        place,
        tensors,
        wanted,
        {"made_from": mark, "point": asdict(point) | {"adapter": place.name}},
    )
    return point


def _measured(
    place: Path,
    weights: tuple[float, ...],
    rank: int,
    exact: int,
    errors: dict[str, tuple[float, float]],
    angles: list[float | None],
) -> Blend:
    total = sum(size for _, size in errors.values())
    relative = {layer: (lost / size) ** 0.5 for layer, (lost, size) in errors.items() if size}
    worst = max(relative, key=lambda layer: relative[layer], default="")
    seen = [angle for angle in angles if angle is not None] or [0.0]
    lost = sum(missed for missed, _ in errors.values())
    return Blend(
        weights=weights,
        adapter=place,
        rank=rank,
        exact_rank=exact,
        error=(lost / total) ** 0.5 if total else 0.0,
        worst_error=relative.get(worst, 0.0),
        worst_layer=worst,
        angles=(min(seen), sum(seen) / len(seen), max(seen)),
    )


@dataclass(frozen=True)
class _Layer:
    """The exact blend of one layer as U diag(values) V: U (out, k), V (k, in), fp64."""

    spelled: str
    left: Tensor
    values: Tensor
    right: Tensor
    angle: float | None

    @property
    def needed(self) -> int:
        """Rank of the blend, what the rounding of the factors adds apart."""
        return int((self.values > LOSSLESS * self.values[0]).sum()) if self.values[0] > 0 else 0

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """A (rank, in) and B (out, rank) in fp32, of the largest singular values, with zeros where there are
        fewer."""
        kept = min(rank, len(self.values))
        root = self.values[:kept].sqrt()
        a = torch.zeros(rank, self.right.shape[1])
        b = torch.zeros(self.left.shape[0], rank)
        a[:kept] = (root[:, None] * self.right[:kept]).float()
        b[:, :kept] = (self.left[:, :kept] * root).float()
        return a, b

    def error(self, a: Tensor, b: Tensor) -> tuple[float, float]:
        """(squared Frobenius norm of what the written factors miss, and of the whole)."""
        exact = (self.left * self.values) @ self.right
        missed = exact - b.double() @ a.double()
        return float(missed.square().sum()), float(exact.square().sum())


def _layers(adapters: Sequence[lora.Adapter], weights: tuple[float, ...]) -> Iterator[_Layer]:
    modules = sorted({module for adapter in adapters for module in adapter.factors})
    for module in modules:
        pairs = [_pair(adapter, module) for adapter in adapters]
        there = [at for at, pair in enumerate(pairs) if pair is not None]
        factors = [pair for pair in pairs if pair is not None]
        spelled = adapters[there[0]].module_names[module]
        shares = [weights[at] for at in there]
        coefficients, angle = _coefficients(factors, shares, spelled)
        left = torch.cat([each * b for each, (_, b) in zip(coefficients, factors, strict=True)], dim=1)
        right = torch.cat([a for a, _ in factors], dim=0)
        yield _Layer(spelled, *_thin_svd(left, right), angle)


def _pair(adapter: lora.Adapter, module: str) -> tuple[Tensor, Tensor] | None:
    """(A, s B) in fp64, None where the adapter leaves the layer alone."""
    factors = adapter.factors.get(module)
    if factors is None:
        return None
    return adapter.tensor(factors.a).double(), factors.scale * adapter.tensor(factors.b).double()


def _coefficients(
    factors: list[tuple[Tensor, Tensor]], weights: list[float], layer: str
) -> tuple[list[float], float | None]:
    """(c, angle) with blend = sum of c_i (s B A)_i. angle: between the first two, in degrees."""
    count = len(factors)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for i, (a, b) in enumerate(factors):
        for j, (other_a, other_b) in enumerate(factors):
            gram[i, j] = ((b.T @ other_b) * (a @ other_a.T)).sum()
    sizes = gram.diagonal().clamp(min=0).sqrt()
    alive = [at for at in range(count) if sizes[at] > 0 and weights[at] > 0]
    length = sum(weights[at] * float(sizes[at]) for at in range(count))
    cosines = (gram / (sizes[:, None] * sizes).clamp(min=1e-300)).clamp(-1, 1)
    angle = (
        float(torch.rad2deg(torch.arccos(cosines[0, 1])))
        if count > 1 and sizes[0] > 0 and sizes[1] > 0
        else None
    )
    found = [0.0] * count
    if alive:
        share = torch.tensor([weights[at] for at in alive], dtype=torch.float64)
        direction = sphere_mean(cosines[alive][:, alive], share / share.sum(), layer)
        for at, part in zip(alive, direction.tolist(), strict=True):
            found[at] = length * part / float(sizes[at])
    return found, angle


def sphere_mean(cosines: Tensor, weights: Tensor, layer: str) -> Tensor:
    """Coefficients (n,) of the weighted mean direction of n unit vectors, given their cosines (n, n), fp64.

    Raises `ConfigError` where it is not defined: vectors that point against each other."""
    mean = weights.clone()
    size = float(mean @ cosines @ mean) ** 0.5
    if size < _OPPOSITE:
        raise ConfigError(
            f"layer {layer}: the adapters point in opposite directions, and no way lies between them"
        )
    mean /= size
    for _ in range(200):
        along = (cosines @ mean).clamp(-1, 1)
        angles = torch.arccos(along)
        stretch = torch.where(
            angles > 1e-7, angles / torch.sin(angles).clamp(min=1e-12), torch.ones_like(angles)
        )
        tangent = weights * stretch - (weights * stretch * along).sum() * mean
        step = max(0.0, float(tangent @ cosines @ tangent)) ** 0.5
        if step < 1e-12:
            break
        mean = torch.cos(torch.tensor(step)) * mean + (torch.sin(torch.tensor(step)) / step) * tangent
        mean = mean / float(mean @ cosines @ mean) ** 0.5
    return mean


def _thin_svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, values, V of left @ right without writing the product out."""
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.T)
    u, values, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return q_left @ u, values, v @ q_right.T


def _write(
    first: lora.Adapter, place: Path, tensors: dict[str, Tensor], rank: int, record: dict[str, Any]
) -> None:
    """The adapter folder, whole or not at all."""
    from safetensors.torch import save_file

    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    names = sorted({key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors})
    kept = {key: first.config.get(key) for key in ("task_type", "base_model_name_or_path")}
    config = kept | {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": names}
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()},
        str(part / lora.WEIGHTS),
        {"format": "pt"},
    )
    manifest.write_json(part / lora.CONFIG, config)
    manifest.write_json(part / "slerp.json", record)
    card = cards.read(first.folder)
    if card is not None:
        cards.write(part, card)
    if place.is_dir():
        place.rmdir()
    part.replace(place)


def _report(out: Path, adapters: Sequence[lora.Adapter], points: Sequence[Blend]) -> None:
    sources = [{"name": each.folder.name, "sha256": loader.weights_sha256(each.folder)} for each in adapters]
    lines = [asdict(point) | {"adapter": point.adapter.name} for point in points]
    manifest.write_json(out / REPORT, {"format": 1, "adapters": sources, "points": lines})


def scorer(path: Path) -> Score:
    """A `Score` that runs the evaluation of a YAML file with each point as its adapter. Raises
    `ConfigError`."""
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
        return json.loads(json.dumps(run.summary["metrics"]))  # type: ignore[no-any-return]

    return score
