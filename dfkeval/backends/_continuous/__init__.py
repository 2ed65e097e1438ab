"""Continuous batching for the Qwen3.5 family: slots with static caches, packed prefill, one decode step."""
