"""The training loop: stages, arguments, checkpoints and what is checked beforehand."""
