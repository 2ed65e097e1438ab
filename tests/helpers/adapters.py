"""A base as released models lie on disk (bf16 with fp32 gates, weights that the class does not load, shards),
and adapters of every kind that PEFT writes for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

EXTRA = "mtp.layers.0.mlp.gate_proj.weight"


def released(plain: Path, folder: Path, *, shards: int = 1) -> Path:
    """The model of `plain` in bf16, its A_log in fp32, with a tensor of a prediction head, in `shards`
    files."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    for path in plain.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder / path.name)
    tensors = load_file(str(plain / "model.safetensors"))
    kept = {name: t if "A_log" in name else t.to(torch.bfloat16) for name, t in tensors.items()}
    torch.manual_seed(9)
    kept[EXTRA] = torch.randn(7, 5).to(torch.bfloat16)
    if shards == 1:
        save_file(kept, str(folder / "model.safetensors"), {"format": "pt"})
        return folder
    homes = {name: f"model-{at % shards + 1:05d}-of-{shards:05d}.safetensors" for at, name in enumerate(kept)}
    for file in sorted(set(homes.values())):
        part = {name: kept[name] for name, home in homes.items() if home == file}
        save_file(part, str(folder / file), {"format": "pt"})
    index = {"metadata": {}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def adapter(
    base: Path,
    folder: Path,
    *,
    seed: int = 0,
    size: float = 0.3,
    modules: str = ".",
    text_class: bool = False,
    **settings: Any,
) -> Path:
    """A LoRA adapter on the linear layers whose names hold `modules`, its B matrices drawn and not zero."""
    import re

    import peft
    import torch
    import transformers

    auto = transformers.AutoModelForCausalLM if text_class else transformers.AutoModelForImageTextToText
    net = auto.from_pretrained(str(base), dtype=torch.float32)
    names = [
        name
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name and re.search(modules, name)
    ]
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": names} | settings)
    torch.manual_seed(seed)
    model = peft.get_peft_model(net, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or ("modules_to_save" in name and parameter.requires_grad):
                parameter.add_(size * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
            elif "lora_magnitude_vector" in name or (parameter.requires_grad and name.endswith(".bias")):
                parameter.mul_(1.1).add_(0.02)
    model.save_pretrained(str(folder))
    return folder


def renamed(folder: Path, target: Path, change: Any, **settings: Any) -> Path:
    """A copy of an adapter with its keys renamed by `change`, and settings replaced."""
    from safetensors.torch import load_file, save_file

    target.mkdir()
    tensors = load_file(str(folder / "adapter_model.safetensors"))
    kept = {change(name): tensor for name, tensor in tensors.items() if change(name)}
    save_file(kept, str(target / "adapter_model.safetensors"), {"format": "pt"})
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (target / "adapter_config.json").write_text(json.dumps(config | settings), encoding="utf-8")
    return target


def tensors_of(folder: Path) -> dict[str, Any]:
    """Every tensor of a model folder by name."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(str(path))
    return found
