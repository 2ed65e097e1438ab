"""Errors, configuration, files, hashes, locks and progress that all three packages share."""
