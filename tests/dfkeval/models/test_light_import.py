"""transformers is imported without scikit-learn and SciPy, and what it uses of them still works."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

CODE = """
import importlib.util, json, sys
from dfkeval.models.light_import import light_transformers
light_transformers()
light_transformers()
from transformers import AutoModelForImageTextToText, Trainer, utils
from transformers.generation import candidate_generator
from transformers.loss import loss_for_object_detection
before = [name for name in sys.modules if name.partition(".")[0] in ("sklearn", "scipy")]
curve = [list(map(float, each)) for each in candidate_generator.roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])]
pairs = [list(map(int, each)) for each in loss_for_object_detection.linear_sum_assignment([[4, 1], [2, 9]])]
from sklearn.metrics import roc_curve
right = [list(map(float, each)) for each in roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])]
known = [utils.is_sklearn_available(), utils.is_scipy_available(), importlib.util.find_spec("scipy.stats") is not None]
print(json.dumps([before, curve == right, pairs, known]))
"""


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_heavy_packages_come_when_a_function_of_theirs_is_called() -> None:
    pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    before, same, pairs, known = json.loads(done.stdout)
    assert before == [] and same and pairs == [[0, 1], [1, 0]] and known == [True] * 3
