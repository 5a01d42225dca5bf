"""Every batch size and layer of the grid, at every damping, against the float64 formula."""

import numpy as np
import pytest
from isaac_gemm import Reference, error, run, session
from onnx import TensorProto

ROWS = [0, 1, 2, 7, 31, 32, 33, 60, 64, 100, 128, 257, 1024]
FEATURES = [1, 10, 100, 400, 784]
DAMPINGS = [1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3, 1e6]


def layer(rng, rows, features, outputs):
    """Inputs as after a ReLU, with a common mean that dominates the curvature; and gradients."""
    a = np.maximum(rng.normal(0.3, 1.0, (rows, features)), 0)
    return rng.normal(0, 1e-2, (rows, outputs)), a


def failures(session, rows, features, dtype, tolerance):
    rng = np.random.default_rng(rows * 1000 + features)
    found = []
    for outputs in FEATURES:
        g, a = (x.astype(dtype) for x in layer(rng, rows, features, outputs))
        reference = Reference(a) if rows else None
        for damping in DAMPINGS:
            damping = dtype(damping)
            expected = reference(g, damping) if rows else np.zeros((outputs, features))
            relative = error(run(session, g, a, lambda_a=damping), expected)
            if not relative <= tolerance:
                found.append((rows, features, outputs, float(damping), relative))
    return found


@pytest.fixture(scope="module")
def single():
    return session(("G", "A", "lambda_a"), threads=2)


@pytest.fixture(scope="module")
def double():
    return session(("G", "A", "lambda_a"), TensorProto.DOUBLE, threads=2)


@pytest.mark.parametrize("rows", ROWS)
def test_float(single, rows):
    found = [failure for features in FEATURES for failure in failures(single, rows, features, np.float32, 1e-5)]
    assert not found


@pytest.mark.parametrize("rows", ROWS)
def test_double(double, rows):
    features = FEATURES if rows < 1000 else [10, 100]
    found = [failure for n in features for failure in failures(double, rows, n, np.float64, 1e-10)]
    assert not found
