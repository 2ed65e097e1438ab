"""Merge adapters into models, blend adapters, and verify the result."""
