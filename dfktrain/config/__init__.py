"""What users write: the run's configuration, its sections, presets and overrides."""
