"""Helpers of the backend that asks OpenAI-compatible servers."""
