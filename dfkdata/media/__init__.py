"""Pictures on disk: found, checked, measured and hashed."""
