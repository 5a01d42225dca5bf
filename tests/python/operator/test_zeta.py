"""The second factor, from sampled gradients, against the float64 formula; and K-FAC, which is the same matrix."""

import numpy as np
import pytest
from isaac_gemm import NUMPY_TYPES, Reference, error, run, session
from onnx import TensorProto

RNG = np.random.default_rng(13)
INPUTS = ("G", "A", "lambda_a", "GBar", "lambda_g")
FORMS = ["auto", "samples", "features", "kronecker"]


def layer(rows, features, outputs, sampled_rows, scale=1.0):
    """Sampled gradients look like those of a softmax: they sum to zero, and one of them is large."""
    g = RNG.normal(size=(rows, outputs))
    a = np.maximum(RNG.normal(0.3, 1.0, (rows, features)), 0)
    g_bar = RNG.dirichlet(np.ones(outputs), sampled_rows) - np.eye(outputs)[RNG.integers(outputs, size=sampled_rows)]
    return g, a, g_bar * scale


def expected(g, a, g_bar, damping_a, damping_g):
    g_bar = np.asarray(g_bar, np.float64)
    curvature = np.eye(g.shape[1]) + g_bar.T @ g_bar / (len(g) * float(damping_g))
    return np.linalg.solve(curvature, Reference(a)(g, damping_a))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("element, tolerance", [(TensorProto.FLOAT, 1e-5), (TensorProto.DOUBLE, 1e-9)])
def test_against_the_formula(element, tolerance, form):
    dtype = NUMPY_TYPES[element]
    node = session(INPUTS, element, form=form)
    shapes = [(1, 4, 3, 1), (30, 50, 10, 30), (30, 20, 40, 60), (60, 100, 120, 60), (90, 20, 10, 5), (200, 30, 60, 200)]
    for rows, features, outputs, sampled_rows in shapes:
        g, a, g_bar = (x.astype(dtype) for x in layer(rows, features, outputs, sampled_rows))
        for damping_a, damping_g in [(1e-3, 1e-5), (0.1, 1e-3), (1.0, 1.0), (1e4, 1e-2), (np.inf, 1e-3), (0.1, np.inf)]:
            damping_a, damping_g = dtype(damping_a), dtype(damping_g)
            got = run(node, g, a, GBar=g_bar, lambda_a=damping_a, lambda_g=damping_g)
            assert error(got, expected(g, a, g_bar, damping_a, damping_g)) < tolerance, (rows, damping_a, damping_g)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_in_the_span_of_the_sampled_ones(form):
    """Everything is damped, so that what is left of g is much smaller than g."""
    node = session(INPUTS, form=form)
    g, a, _ = (x.astype(np.float32) for x in layer(40, 60, 80, 40))
    for damping in [1e-4, 1e-2, 1.0]:
        got = run(node, g, a, GBar=g, lambda_a=1.0, lambda_g=damping)
        assert error(got, expected(g, a, g, 1.0, np.float32(damping))) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_layouts(form):
    g, a, g_bar = (x.astype(np.float32) for x in layer(24, 15, 10, 36))
    want = expected(g, a, g_bar, 0.5, 0.25)
    attributes = dict(lambda_g=0.25, form=form)
    node = session(INPUTS[:4], transG=1, transA=1, transY=1, **attributes)
    got = run(node, g.T.copy(), a.T.copy(), GBar=g_bar.T.copy(), lambda_a=0.5)
    assert error(got, want.T) < 1e-5
    node = session(INPUTS[:4], ranks=(3, 3, 4), alpha=-3.0, **attributes)
    got = run(node, g.reshape(4, 6, 10), a.reshape(4, 6, 15), GBar=g_bar.reshape(2, 3, 6, 10), lambda_a=0.5)
    assert error(got, -3 * want) < 1e-5
    stacked = [np.stack([x, 2 * x]) for x in (g, a, g_bar)]
    node = session(INPUTS[:4], ranks=(3, 3, 3), batched=1, **attributes)
    got = run(node, stacked[0], stacked[1], GBar=stacked[2], lambda_a=0.5)
    assert error(got[0], want) < 1e-5
    assert error(got[1], expected(*(2 * x for x in (g, a, g_bar)), 0.5, 0.25)) < 1e-5


def test_without_sampled_rows_or_with_infinite_damping_it_is_zeta_star():
    g, a, g_bar = (x.astype(np.float32) for x in layer(20, 15, 10, 20))
    zeta_star = run(session(lambda_a=0.5), g, a)
    for sampled, damping in [(g_bar[:0], 1.0), (g_bar, np.inf)]:
        assert np.array_equal(run(session(INPUTS), g, a, GBar=sampled, lambda_a=0.5, lambda_g=damping), zeta_star)
    assert np.array_equal(run(session(INPUTS[:4]), g, a, GBar=g_bar, lambda_a=0.5), zeta_star), "the default is infinite"


def test_float16():
    g, a, g_bar = (x.astype(np.float16) for x in layer(20, 15, 10, 20))
    got = run(session(INPUTS, TensorProto.FLOAT16), g, a, GBar=g_bar, lambda_a=0.5, lambda_g=0.125)
    assert error(got, expected(g, a, g_bar, 0.5, 0.125)) < 1e-3


def test_errors():
    g, a, g_bar = (x.astype(np.float32) for x in layer(6, 5, 4, 6))
    node = session(INPUTS)
    with pytest.raises(Exception, match="dense1.*GBar must have as many features as G.*GBar has the shape .6, 3."):
        run(node, g, a, GBar=g_bar[:, :3].copy(), lambda_a=1.0, lambda_g=1.0)
    with pytest.raises(Exception, match="dense1.*lambda_g must be greater than zero, not -1"):
        run(node, g, a, GBar=g_bar, lambda_a=1.0, lambda_g=-1.0)
    g_bar[2, 1] = np.nan
    assert np.isnan(run(node, g, a, GBar=g_bar, lambda_a=1.0, lambda_g=1.0)).all()
