"""Write what JavaScript says to the patterns of the tests: `python -m tools.ecma_patterns` (needs `node`).

The golden file holds, for each pattern, the flags with which JavaScript reads it and the texts that it matches as bits;
null for a pattern that it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers.ecma_patterns import GOLDEN, usual, verdicts

if __name__ == "__main__":
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    patterns = usual()
    lines = [
        json.dumps([pattern, verdict], ensure_ascii=True)
        for pattern, verdict in zip(patterns, verdicts(patterns, "node"), strict=True)
    ]
    GOLDEN.write_text(json.dumps({"node": version}) + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(f"{GOLDEN}: {len(lines)} patterns\n")
