"""Write the built-in model in a second shape: Gated DeltaNet heads of 128, as the released models have.

vLLM's CPU kernels take no narrower heads. The trained weights are kept and padded with zeros so that the wide
model computes what the built-in one does: queries and keys keep their angles, the normed output is brought back
by the norm's weight, and the scale of the queries falls away in that norm. Nothing is stored in the repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dfkeval.models import tiny

if TYPE_CHECKING:
    import torch

#: Width of a head of the released models.
HEAD = 128


def write(folder: Path) -> Path:
    """Write the wide model as a model folder of transformers.

    Args:
        folder: A folder that does not exist yet.

    Returns:
        The folder.
    """
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny.path(), folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    text = config["text_config"]
    heads, narrow = text["linear_num_key_heads"], text["linear_key_head_dim"]
    text |= {"linear_key_head_dim": HEAD, "linear_value_head_dim": HEAD}
    text["rms_norm_eps"] *= (narrow / HEAD) ** 2
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    wide = {name: _widened(name, tensor, heads, narrow).contiguous() for name, tensor in weights.items()}
    save_file(wide, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _widened(name: str, tensor: torch.Tensor, heads: int, narrow: int) -> torch.Tensor:
    """Return a tensor of the wide model; those of other layers are the same."""
    import torch

    if ".linear_attn." not in name:
        return tensor
    match name.rsplit(".linear_attn.", 1)[1]:
        case "in_proj_qkv.weight" | "conv1d.weight":
            return torch.cat([_padded(part, heads, narrow, 0) for part in tensor.chunk(3)])
        case "in_proj_z.weight":
            return _padded(tensor, heads, narrow, 0)
        case "out_proj.weight":
            return _padded(tensor, heads, narrow, 1)
        case "norm.weight":
            return _padded(tensor * (narrow / HEAD) ** 0.5, 1, narrow, 0)
    return tensor


def _padded(tensor: torch.Tensor, heads: int, narrow: int, axis: int) -> torch.Tensor:
    """Return a tensor whose heads lie along an axis, each filled up with zeros to the wide width."""
    import torch

    parts = tensor.unflatten(axis, (heads, narrow))
    shape = list(parts.shape)
    shape[axis + 1] = HEAD - narrow
    return torch.cat([parts, parts.new_zeros(shape)], axis + 1).flatten(axis, axis + 1)
