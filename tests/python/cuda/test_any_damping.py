"""Float at every damping and scale at which float64 can tell what is right, for the inputs of the operator's tests on the CPU."""

import numpy as np
import pytest
from isaac_gemm import Reference, error, run, session
from test_accuracy import KINDS, SHAPES

# Of orders above one tile, fewer: the interpreter takes a second for each.
DAMPINGS = np.float32(10.0) ** np.arange(-8, 9, dtype=np.float32)
FEW = np.float32([1e-6, 1e-2, 1, 1e3])


@pytest.mark.parametrize("form", ["samples", "features"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_damping(kind, form):
    rng = np.random.default_rng(5)
    node = session(("G", "A", "lambda_a"), form=form)
    checked = 0
    for (rows, features, outputs), scale in [(shape, scale) for shape in SHAPES for scale in (1e-3, 1.0, 1e3)]:
        a = (KINDS[kind](rng, rows, features) * scale).astype(np.float32)
        g = rng.normal(size=(rows, outputs)).astype(np.float32)
        reference = Reference(a)
        expected = reference.for_gradients(g)
        for damping in DAMPINGS if rows < 128 else FEW if scale == 1 else []:
            # Beyond this the smallest eigenvalue of the damped matrix is lost in the rounding of float64.
            if reference.s[0] ** 2 / (rows * damping) < 1e9:
                relative = error(run(node, g, a, lambda_a=damping), expected(damping))
                assert relative < 1e-5, (rows, features, outputs, scale, damping, relative)
                checked += 1
    assert checked > 100
