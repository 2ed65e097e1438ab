"""What all three packages share: errors, configuration, files, hashes, locks and progress."""
