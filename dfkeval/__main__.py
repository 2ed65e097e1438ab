"""Run the `dfkeval` command as `python -m dfkeval`."""

from __future__ import annotations

from dfkeval.cli.app import main

if __name__ == "__main__":
    main()
