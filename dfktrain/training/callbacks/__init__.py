"""What the trainer calls while it runs: progress, monitoring, curves and trackers."""
