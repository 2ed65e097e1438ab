"""Rows to batches: mask, collator, samplers, packing and video."""
