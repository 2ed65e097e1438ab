"""Validate values against a JSON Schema."""
