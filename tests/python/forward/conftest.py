"""Tests of the training graphs that isaac-rewrite makes of forward models, in the ONNX Runtime at hand.

ISAAC_REWRITE is the path of the isaac-rewrite program, ISAAC_LIBRARY that of libisaac.so, ISAAC_OTHER_PYTHON an interpreter with
another ONNX Runtime.
"""

import os
import sys
from pathlib import Path

import onnxruntime
import pytest

ROOT = Path(__file__).resolve().parents[3]
# The scripts that build graphs, and what the tests of the operator and of the rewriter share.
sys.path += [str(ROOT / folder) for folder in ("onnx", "tools/python", "tests/python/operator", "tests/python/rewrite")]
onnxruntime.set_default_logger_severity(3)
pytest.register_assert_rewrite("graphs", "dense", "losses")


def pytest_configure():
    for variable in ("ISAAC_REWRITE", "ISAAC_LIBRARY", "ISAAC_OTHER_PYTHON"):
        if not Path(os.environ.get(variable, "")).is_file():
            raise pytest.UsageError(f"{variable} has to be the path of a file")
