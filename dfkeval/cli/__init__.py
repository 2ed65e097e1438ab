"""The `dfkeval` command, one file a command."""
