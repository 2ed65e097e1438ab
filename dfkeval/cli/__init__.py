"""The `dfkeval` command, one file a command; `runs` holds five that read finished runs."""
