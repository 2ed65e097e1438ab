"""Run the `dfktrain` command as `python -m dfktrain`."""

from __future__ import annotations

from dfktrain.cli.app import main

if __name__ == "__main__":
    main()
