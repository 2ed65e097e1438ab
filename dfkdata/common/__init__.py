"""Errors, configuration, files, hashes, JSON Schemas, locks and progress that all three packages share."""
