"""Coverage-guided fuzzing of the parser. Slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_coverage_guided_fuzzing_finds_no_text_that_raises(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    script = Path(__file__).with_name("fuzz_toolcall.py")
    limits = ["-runs=60000", "-max_len=120", "-seed=1", "-timeout=10", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [sys.executable, str(script), *limits, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert "DONE" in done.stderr
