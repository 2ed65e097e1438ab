"""Run the `dfkdata` command as `python -m dfkdata`."""

from __future__ import annotations

from dfkdata.cli.app import main

if __name__ == "__main__":
    main()
