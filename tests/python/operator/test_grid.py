"""Every batch size and layer of the grid, at every damping, against the float64 formula."""

import numpy as np
import pytest
from isaac_gemm import Reference, error, run, session
from onnx import TensorProto

ROWS = [0, 1, 2, 7, 31, 32, 33, 60, 64, 100, 128, 257, 1024]
FEATURES = [1, 10, 100, 400, 784]


def inputs(rng, rows, features):
    """As after a ReLU, with a common mean that dominates the curvature."""
    return np.maximum(rng.normal(0.3, 1.0, (rows, features)), 0)


def failures(session, rows, features, dtype, dampings, tolerance):
    rng = np.random.default_rng(rows * 1000 + features)
    a = inputs(rng, rows, features).astype(dtype)
    reference = Reference(a)
    found = []
    for outputs in FEATURES:
        g = rng.normal(0, 1e-2, (rows, outputs)).astype(dtype)
        expected = reference.for_gradients(g)
        for damping in map(dtype, dampings):
            relative = error(run(session, g, a, lambda_a=damping), expected(damping))
            if not relative <= tolerance:
                found.append((rows, features, outputs, float(damping), relative))
    return found


@pytest.fixture(scope="module")
def single():
    return session(("G", "A", "lambda_a"))


@pytest.fixture(scope="module")
def double():
    return session(("G", "A", "lambda_a"), TensorProto.DOUBLE)


@pytest.mark.parametrize("rows", ROWS)
def test_float(single, rows):
    dampings = [1e-3, 0.1, 10.0, 1e6]
    found = [failure for n in FEATURES for failure in failures(single, rows, n, np.float32, dampings, 1e-5)]
    assert not found


@pytest.mark.parametrize("rows", ROWS)
def test_double(double, rows):
    dampings = [1e-3, 1.0, 1e6]
    found = [failure for n in FEATURES for failure in failures(double, rows, n, np.float64, dampings, 1e-10)]
    assert not found
