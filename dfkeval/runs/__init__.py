"""What a run is, in YAML and on disk."""
