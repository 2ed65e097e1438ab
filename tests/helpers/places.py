"""Where the repository and its test material lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GOLDEN = ROOT / "tests" / "golden"
FAKES = ROOT / "tests" / "fakes"
