"""Float at every damping and scale at which float64 can tell what is right, for the inputs of the operator's tests on the CPU."""

import numpy as np
import pytest
from test_accuracy import DAMPINGS, KINDS, check_dampings

# Of orders above one tile, fewer: the interpreter takes a second for each.
FEW = np.float32([1e-6, 1e-2, 1, 1e3])


@pytest.mark.parametrize("form", ["samples", "features"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_damping(kind, form):
    check_dampings(kind, form, lambda rows, scale: DAMPINGS if rows < 128 else FEW if scale == 1 else [])
