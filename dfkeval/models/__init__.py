"""The model: base, adapter, processor and `dfk.json`."""
