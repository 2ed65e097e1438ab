"""Merge adapters into models and verify the result."""
