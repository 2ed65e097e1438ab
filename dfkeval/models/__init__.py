"""Models on disk and in memory: base, adapter, processor, `dfk.json`, and the text encoder of metrics."""
