"""Label raw data with a teacher model."""
