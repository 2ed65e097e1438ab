"""Time and memory of putting an adapter into a model of the real 0.8B shape: CPU, one process a contender.

    python bench/merge.py [--out FILE.json] [--shape tiny]

A base with random bf16 weights (fp32 A_log, an mtp tensor) and a rank-16 adapter on every linear layer are
written once. Then, each in a process of its own:
  file-level        the weights as `dfktrain merge` writes them, without the verification
  load-merge-save   transformers + PEFT: load in bf16, merge_and_unload(safe_merge=True), save_pretrained
Peak RSS is what the operating system says of the finished process; the first line is one that only imports.
The table says as well how many of the base's tensors are in the result, byte for byte or
changed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from base_model import SHAPES, make_config

IMPORTS = "import sys, torch, transformers, peft, dfktrain.merging.merge\ntorch.set_num_threads(1)\n"

CONTENDERS = {
    "imports only": "",
    "file-level": """
from pathlib import Path
from dfktrain.merging import merge, plan
from dfktrain.weights import lora, safetensors_io
base, adapter, out = map(Path, sys.argv[1:])
out.mkdir()
files = safetensors_io.weight_files(base)
merge.write_weights(files, out, plan.plan_changes(lora.read(adapter), files, base))
""",
    "load-merge-save": """
base, adapter, out = sys.argv[1:]
net = transformers.AutoModelForImageTextToText.from_pretrained(base, dtype=torch.bfloat16)
net = peft.PeftModel.from_pretrained(net, adapter).merge_and_unload(safe_merge=True)
net.save_pretrained(out)
""",
}


def write_base(folder: Path, shape: str) -> None:
    """Random weights of the shape, tensor by tensor, in one file."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForImageTextToText

    settings = make_config(shape)
    with torch.device("meta"):
        net = AutoModelForImageTextToText.from_config(settings)
    torch.manual_seed(0)
    tensors = {"mtp.fc.weight": torch.randn(64, 64).bfloat16()}
    for name, parameter in net.named_parameters():
        kind = torch.float32 if name.endswith("A_log") else torch.bfloat16
        tensors[name] = torch.empty(parameter.shape, dtype=kind).normal_(std=0.02)
    folder.mkdir()
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})
    settings.architectures = ["Qwen3_5ForConditionalGeneration"]
    settings.save_pretrained(folder)


def write_adapter(base: Path, folder: Path) -> None:
    """A rank-16 adapter on every linear layer but the head."""
    from safetensors.torch import save_file

    from dfktrain.weights import safetensors_io

    torch = __import__("torch")
    entries = [e for file in safetensors_io.weight_files(base) for e in file.entries]
    layers = [
        e
        for e in entries
        if len(e.shape) == 2 and e.name.endswith(".weight") and not e.name.startswith("mtp")
    ]
    layers = [e for e in layers if "embed" not in e.name]
    tensors: dict[str, Any] = {}
    for entry in layers:
        home = f"base_model.model.{entry.name.removesuffix('.weight')}"
        tensors[f"{home}.lora_A.weight"] = torch.randn(16, entry.shape[1]) / 32
        tensors[f"{home}.lora_B.weight"] = torch.randn(entry.shape[0], 16) / 320
    folder.mkdir()
    save_file(tensors, str(folder / "adapter_model.safetensors"), {"format": "pt"})
    names = [entry.name.removesuffix(".weight") for entry in layers]
    settings = {"peft_type": "LORA", "r": 16, "lora_alpha": 16, "target_modules": names}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")


def measure(code: str, arguments: list[str]) -> tuple[float, float]:
    """(seconds, peak MiB) of a process. Peak: ru_maxrss of the child, which the kernel keeps."""
    tail = "\nimport resource; print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    started = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS + code + tail, *arguments], capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise SystemExit(found.stderr)
    peak = next(line for line in found.stdout.splitlines() if line.startswith("PEAK"))
    return time.perf_counter() - started, float(peak.split()[1])


def kept(base: Path, out: Path) -> tuple[int, int, int]:
    """(tensors of the base, of them byte for byte in the result, missing)."""
    import torch

    from dfktrain.weights import safetensors_io

    def tensors(folder: Path) -> dict[str, Any]:
        files = safetensors_io.weight_files(folder)
        return {name: t for file in files for name, t in safetensors_io.read_tensors(file.path, file.shapes)}

    before, after = tensors(base), tensors(out)
    same = sum(
        n in after and after[n].dtype == t.dtype and torch.equal(after[n], t) for n, t in before.items()
    )
    return len(before), same, len(set(before) - set(after))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="0.8B")
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_base(root / "base", asked.shape)
        write_adapter(root / "base", root / "adapter")
        size = (root / "base" / "model.safetensors").stat().st_size / 2**20
        print(f"base: {size:,.0f} MiB")
        for name, code in CONTENDERS.items():
            out = root / name.replace(" ", "-")
            seconds, peak = measure(code, [str(root / "base"), str(root / "adapter"), str(out)])
            results[name] = {"seconds": seconds, "peak_mib": peak}
            if out.exists():
                results[name] |= dict(
                    zip(("tensors", "same", "missing"), kept(root / "base", out), strict=True)
                )
    for name, found in results.items():
        line = f"{name:16} {found['seconds']:6.1f} s  {found['peak_mib']:7,.0f} MiB"
        if "same" in found:
            line += (
                f"  {found['same']} of {found['tensors']} tensors byte for byte, {found['missing']} missing"
            )
        print(line)
    if asked.out:
        asked.out.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
