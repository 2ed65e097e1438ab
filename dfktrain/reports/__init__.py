"""Pages about a run: loss curves and the model card."""
