"""The `dfkdata` command, one file a command."""
