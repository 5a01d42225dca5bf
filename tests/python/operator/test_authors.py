"""Against gradients that the authors' own package computed; onnx/authors_isaac.py made the file."""

from pathlib import Path

import numpy as np
from isaac_gemm import error, run, session
from onnx import TensorProto

FIXTURE = Path(__file__).parents[3] / "onnx" / "authors_isaac.npz"


def test_gradients_of_the_authors():
    arrays = np.load(FIXTURE)
    expected = {key: arrays[key] for key in arrays if ".dw." in key}
    assert len(expected) == 12
    single = session(("G", "A", "lambda_a"))
    double = session(("G", "A", "lambda_a"), TensorProto.DOUBLE)
    for key, dw in expected.items():
        case, damping = key.split(".dw.")
        g, a = arrays[f"{case}.g"], arrays[f"{case}.a"]
        assert error(run(double, g, a, lambda_a=float(damping)), dw) < 1e-12, key
        assert error(run(single, g.astype("f"), a.astype("f"), lambda_a=float(damping)), dw) < 1e-5, key
