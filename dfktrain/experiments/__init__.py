"""Base against tuned, sweeps over many runs, and rejection sampling."""
