"""Merge an adapter into its base: a model folder that needs neither PEFT nor this project, and is verified.

How it works: the base's weight files are rewritten with the adapter added into its layers, and everything else
is copied byte for byte: tensors that the loaded class does not know (`mtp.*`), fp32 ones among bf16 (`A_log`),
the tied head. A model that is loaded and saved again would lose the first and round the second.

Guarantees:
    - While writing, one tensor is in memory at a time.
    - The folder appears under its name after `verification` has passed; a failure leaves nothing behind.
    - What cannot be merged is refused by name before anything is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import folder_sha256
from dfkdata.common.json_files import read_json_or_none, write_json
from dfkeval.models import adapters, loader, metadata
from dfktrain.engines import package_versions
from dfktrain.merging import probes as probes_
from dfktrain.merging.base_model import find_base, public_name
from dfktrain.merging.companions import (
    check_template,
    copy_companions,
    copy_template,
    write_video_processor,
)
from dfktrain.merging.plan import Changes, plan_changes
from dfktrain.merging.verification import Verification, verify_merge
from dfktrain.reports import model_card
from dfktrain.weights import lora
from dfktrain.weights.safetensors_io import TensorFile, rewrite, weight_files

REPORT = "merge-report.json"
"""File that says what was merged and how it was verified, in the folder of a merged model."""

_NOT_COPIED = (adapters.CONFIG_FILE, REPORT, "trainer_state.json", metadata.NAME, model_card.NAME)


@dataclass(frozen=True)
class MergeReport:
    """A finished merge.

    Attributes:
        out: Folder of the merged model.
        base: Name of the base.
        base_sha256: Hash of the base's weight files.
        adapter_sha256: Hash of the adapter's weight file.
        merged_sha256: Hash of the written weight files.
        changed: Names of the tensors with the adapter in them.
        kept: Number of tensors that equal the base's byte for byte.
        scales: s of the LoRA formula -> number of layers with it.
        notes: What the user should know.
        verification: The figures of the verification, their bounds and whether it "passed"; "proof" in
            merge-report.json.
        seconds: Time that the merge took.
        versions: Package -> version.
    """

    out: Path
    base: str
    base_sha256: str
    adapter_sha256: str
    merged_sha256: str
    changed: tuple[str, ...]
    kept: int
    scales: dict[str, int]
    notes: tuple[str, ...]
    verification: dict[str, Any]
    seconds: float
    versions: dict[str, str]

    def record(self) -> dict[str, Any]:
        """Return the contents of merge-report.json."""
        fields = {"proof" if name == "verification" else name: value for name, value in asdict(self).items()}
        return fields | {"format": 1, "out": self.out.name}


def merge_adapter(
    base_dir: str | Path | None,
    adapter_dir: str | Path,
    out_dir: str | Path,
    *,
    probes: Path | None = None,
    chat_template: Path | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> MergeReport:
    """Merge a LoRA adapter into its base and verify the result.

    Args:
        base_dir: The base: a folder, "tiny" or a Hub name; None takes the model that the adapter names, for a
            4-bit one its 16-bit original.
        adapter_dir: Folder of the adapter.
        out_dir: Folder of the merged model; it must be new or empty.
        probes: Rows whose prompts are used for the verification; None takes the built-in prompts.
        chat_template: Template of the training, if it is neither in the adapter's folder nor the base's.
        device: Where the verification runs: "auto", "cpu" or "cuda".
        say: Receives a line for each step.

    Returns:
        The report, which is also written to `out_dir`/merge-report.json.

    Raises:
        ConfigError: The adapter cannot be merged into this base, or an argument is wrong.
        DataError: A file is broken, or the merged model failed the verification; nothing is kept.
        BackendError: The base cannot be downloaded.

    Example:
        >>> import peft, tempfile
        >>> from dfktrain import merge_adapter, tiny
        >>> model, _ = tiny.load()
        >>> config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        >>> folder = tempfile.mkdtemp()
        >>> peft.get_peft_model(model, config).save_pretrained(f"{folder}/adapter")
        >>> report = merge_adapter("tiny", f"{folder}/adapter", f"{folder}/model")
        >>> report.verification["passed"], len(report.changed)
        (True, 2)
    """
    started, device = time.perf_counter(), loader.pick_device(torch, device)
    out = _free_folder(Path(out_dir))
    adapter = lora.read(Path(adapter_dir))
    base, notes = find_base(base_dir, adapter)
    merge = _Merge.plan(base, adapter)
    with _staging(out, merge.files) as part:
        notes += merge.write(part, chat_template, say)
        verification = merge.verify(part, probes, device, say)
        report = merge.report(out, part, public_name(base_dir, adapter, base), notes, verification, started)
        model_card.write(adapter.folder.parent, part, merged=True)
        write_json(part / REPORT, report.record(), floats="repr")
    return report


@dataclass(frozen=True)
class _Merge:
    """A planned merge: base, adapter, the adapter's `dfk.json`, and how the base's tensors change."""

    base: Path
    adapter: lora.Adapter
    card: metadata.ModelMetadata | None
    files: list[TensorFile]
    changes: Changes

    @classmethod
    def plan(cls, base: Path, adapter: lora.Adapter) -> _Merge:
        _check_not_merged_before(base, adapter.folder)
        files = weight_files(base)
        return cls(base, adapter, metadata.read(adapter.folder), files, plan_changes(adapter, files, base))

    def write(self, folder: Path, template: Path | None, say: Callable[[str], None]) -> list[str]:
        """Write the model to a folder and return notes for the user."""
        notes = copy_companions(self.base, folder, _NOT_COPIED)
        notes += copy_template(self.adapter.folder, folder, template)
        write_video_processor(folder)
        check_template(self.card, folder, self.adapter.folder)
        say("writing the weights")
        write_weights(self.files, folder, self.changes)
        if self.card is not None:
            metadata.write(folder, self.card)
        return notes

    def verify(
        self, folder: Path, rows: Path | None, device: str, say: Callable[[str], None]
    ) -> Verification:
        """Compare the written model with base and adapter. Raises `DataError` if they differ."""
        prompts = probes_.of_rows(rows) if rows is not None else probes_.built_in(folder, self.card)
        changed = set(self.changes)
        result = verify_merge(self.base, self.adapter, folder, changed, prompts, device=device, say=say)
        if result.faults:
            raise DataError(
                f"{self.adapter.folder}: the merged model differs from base and adapter, nothing is kept: "
                + "; ".join(result.faults)
            )
        return result

    def report(
        self,
        out: Path,
        folder: Path,
        base_name: str,
        notes: list[str],
        verification: Verification,
        started: float,
    ) -> MergeReport:
        """Return the report on the model that is written to `folder` and will be `out`."""
        return MergeReport(
            out=out,
            base=base_name,
            base_sha256=folder_sha256(self.base),
            adapter_sha256=folder_sha256(self.adapter.folder),
            merged_sha256=folder_sha256(folder),
            changed=tuple(sorted(self.changes)),
            kept=verification.weights["kept"],
            scales=_scales(self.adapter),
            notes=tuple(notes),
            verification=verification.record(),
            seconds=round(time.perf_counter() - started, 3),
            versions=package_versions(),
        )


def write_weights(files: list[TensorFile], folder: Path, changes: Changes) -> None:
    """Write the base's weight files to a folder, with the changed tensors."""
    for file in files:
        rewrite(
            file,
            folder / file.path.name,
            lambda entry, old: changes[entry.name](old) if entry.name in changes else None,
        )


def _free_folder(out: Path) -> Path:
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; name a new folder with --out")
    return out


def _check_not_merged_before(base: Path, adapter: Path) -> None:
    earlier = read_json_or_none(base / REPORT)
    if earlier is not None and earlier.get("adapter_sha256") == folder_sha256(adapter):
        raise ConfigError(
            f"{base}: this adapter is merged into it already, twice would be {adapter} doubled; "
            f"merge into {earlier['base']}"
        )


@contextmanager
def _staging(out: Path, files: list[TensorFile]) -> Iterator[Path]:
    """Make a folder beside `out` that takes its name if all goes well, and is deleted otherwise."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _make_folder(part, files)
        yield part
        if out.is_dir():
            out.rmdir()
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _make_folder(folder: Path, files: list[TensorFile]) -> None:
    """Make the folder. Raises `ConfigError` if that is impossible or the disk has no room for the weights."""
    needed = sum(file.path.stat().st_size for file in files)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{folder.parent}: cannot be written ({error.strerror}); give another --out"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < needed * 1.02:
        raise ConfigError(
            f"{folder.parent}: {free >> 20} MiB free, the model needs {needed >> 20}; give another --out"
        )


def _scales(adapter: lora.Adapter) -> dict[str, int]:
    counts: dict[str, int] = {}
    for factors in adapter.factors.values():
        scale = f"{factors.scale:g}"
        counts[scale] = counts.get(scale, 0) + 1
    return counts
