"""Find the base of an adapter, and check that the adapter can be merged into it."""

from __future__ import annotations

from pathlib import Path

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models import metadata
from dfkeval.models.source import model_source
from dfktrain.engines import shapes_without_weights
from dfktrain.merging.plan import read_config
from dfktrain.merging.probes import is_vision_model
from dfktrain.weights import lora


def find_base(base: str | Path | None, adapter: lora.Adapter) -> tuple[Path, list[str]]:
    """Find the model into which an adapter is merged; a model of the Hub is downloaded.

    Args:
        base: A folder, "tiny" or a Hub name; None takes the model that the adapter names.
        adapter: The adapter.

    Returns:
        The folder of the base, and notes for the user.

    Raises:
        ConfigError: There is no such model, its weights are quantised, or the adapter does not belong to it.
        BackendError: The model cannot be downloaded.
    """
    card = metadata.read(adapter.folder)
    recorded = _recorded_name(adapter, card)
    if base is None and recorded is None:
        raise ConfigError(f"adapter {adapter.folder}: names no base model; give it with --base")
    notes = _quantisation_notes(adapter, card)
    folder = _local_folder(base if base is not None else str(recorded))
    if read_config(folder).get("quantization_config"):
        raise ConfigError(
            f"base {folder}: its weights are quantised, and a sum with them would be rounded to their few "
            f"bits; merge into the 16-bit model: --base {recorded or lora.full_precision(folder.name)}"
        )
    _check_shapes(card, folder, adapter.folder)
    if base is not None and recorded and Path(recorded).name != Path(str(base)).name:
        notes.append(
            f"the adapter names {Path(recorded).name} as its base, it is merged into {Path(base).name}"
        )
    return folder, notes


def public_name(base: str | Path | None, adapter: lora.Adapter, folder: Path) -> str:
    """Return the name of the base for a report, without folders of this machine.

    Args:
        base: The base as the user named it; None if the adapter's own was taken.
        adapter: The adapter.
        folder: Folder of the base.
    """
    name = str(base) if base is not None else _recorded_name(adapter, metadata.read(adapter.folder))
    name = name or folder.name
    return Path(name).name if Path(name).is_dir() else name


def _recorded_name(adapter: lora.Adapter, card: metadata.ModelMetadata | None) -> str | None:
    """Return the base that `dfk.json` or PEFT recorded; for a 4-bit one its 16-bit original."""
    name = card.base.name if card is not None and card.base is not None else adapter.base
    return lora.full_precision(name) if name else None


def _quantisation_notes(adapter: lora.Adapter, card: metadata.ModelMetadata | None) -> list[str]:
    """Say what a 4-bit base in training means for the merged model. Raises `ConfigError` for LoftQ."""
    quantized = card.quantized if card is not None else None
    if quantized is not None and "loftq" in quantized:
        raise ConfigError(
            f"adapter {adapter.folder}: LoftQ started it as the error of the 4-bit base, which the 16-bit "
            "base does not have; serve it on the 4-bit base"
        )
    if not adapter.four_bit_base and quantized is None:
        return []
    recorded = _recorded_name(adapter, card)
    how = f"{adapter.base}, a 4-bit model" if adapter.four_bit_base else f"{recorded}, in 4 bit"
    return [
        f"the adapter was trained on {how}; merged into the 16-bit base, it answers as that one does with "
        "the adapter, not as the 4-bit one did: score it again"
    ]


def _check_shapes(card: metadata.ModelMetadata | None, folder: Path, adapter: Path) -> None:
    """Raise unless the base has the parameters that `dfk.json` records."""
    expected = card.base.shapes_sha256 if card is not None and card.base is not None else None
    if expected is None or not is_vision_model(folder):
        return
    if shapes_without_weights(str(folder)) != expected:
        raise ConfigError(
            f"adapter {adapter}: was trained on a model of other shapes than {folder}; give its own base "
            "with --base"
        )


def _local_folder(name: str | Path) -> Path:
    source = model_source(name)
    if Path(source).is_dir():
        return Path(source)
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(source))
    except HFValidationError as error:
        raise ConfigError(f"model {source!r}: no such folder, and no name of a hub model") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BackendError(f"model {source!r} cannot be downloaded: {error}") from error
