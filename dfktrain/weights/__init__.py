"""Weights on disk: checkpoints, adapters and safetensors files."""
