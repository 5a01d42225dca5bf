"""Tests of models of old operator sets through isaac-rewrite's command line, in the newest stock ONNX Runtime.

ISAAC_REWRITE is the path of the isaac-rewrite program, ISAAC_ONNX_DATA the backend test data of the onnx 1.16.2 package.
"""

import os
from pathlib import Path

import onnxruntime
import pytest

onnxruntime.set_default_logger_severity(4)
pytest.register_assert_rewrite("aside")


def pytest_configure():
    for variable in ("ISAAC_REWRITE", "ISAAC_ONNX_DATA"):
        if not Path(os.environ.get(variable, "")).exists() or not os.environ.get(variable):
            raise pytest.UsageError(f"{variable} has to be the path of a file or folder")
