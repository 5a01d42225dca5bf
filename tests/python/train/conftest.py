"""Tests of isaac-train, in the ONNX Runtime at hand.

ISAAC_TRAIN is the path of the program, ISAAC_REWRITE that of isaac-rewrite, ISAAC_LIBRARY that of libisaac.so, ISAAC_OTHER_PYTHON an interpreter with
another ONNX Runtime.
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path += [str(ROOT / folder) for folder in ("tools/python", "tests/python/operator", "tests/python/rewrite", "tests/python/forward")]
pytest.register_assert_rewrite("runs")


def pytest_configure():
    for variable in ("ISAAC_TRAIN", "ISAAC_REWRITE", "ISAAC_LIBRARY", "ISAAC_OTHER_PYTHON"):
        if not Path(os.environ.get(variable, "")).is_file():
            raise pytest.UsageError(f"{variable} has to be the path of a file")
