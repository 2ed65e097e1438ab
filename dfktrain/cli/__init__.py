"""The `dfktrain` command, one file a command."""
