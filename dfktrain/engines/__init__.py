"""FAMILY: one engine a file. An engine loads a base and puts the adapter on it; everything else is shared.

    available() -> str | None                 None, or why this engine cannot run here, in one line
    load(config: TrainConfig, precision) -> Base   the base model and its processor
    adapt(base, modules, config) -> model     a PEFT model; `modules` are full names, resolved once

Both engines get the same module list, the same batches and the same loss, so a run differs by its kernels
only."""
