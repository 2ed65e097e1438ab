"""Rows to batches: mask, collator, samplers and packing."""
