"""Tests of the rewriter through its command line, judged by the real ONNX Runtime and by formulas in NumPy.

ISAAC_REWRITE is the path of the isaac-rewrite program, ISAAC_LIBRARY that of libisaac.so. The interpreter has
onnxruntime-training-cpu 1.19.2, whose generator writes the training graphs.
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# The scripts that build graphs.
sys.path.insert(0, str(ROOT / "onnx"))
pytest.register_assert_rewrite("checks", "oracle", "tool")


def pytest_configure():
    for variable in ("ISAAC_REWRITE", "ISAAC_LIBRARY"):
        if not Path(os.environ.get(variable, "")).is_file():
            raise pytest.UsageError(f"{variable} has to be the path of a file")
