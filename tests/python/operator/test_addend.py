"""The input C, which the gradient is added to: against the float64 formula, with the inputs before it and without."""

import itertools

import numpy as np
import pytest
from isaac_gemm import NUMPY_TYPES, Reference, error, message, run, session
from onnx import TensorProto
from test_zeta import expected as zeta
from test_zeta import layer

RNG = np.random.default_rng(23)
FORMS = ["auto", "samples", "features", "kronecker"]
ZETA_STAR = ("G", "A", "lambda_a", "", "", "C")
ZETA = ("G", "A", "lambda_a", "GBar", "lambda_g", "C")
# In the precision of the element: what is computed is as large as C, and so is its error.
TOLERANCE = {TensorProto.FLOAT: 1e-6, TensorProto.DOUBLE: 1e-13, TensorProto.FLOAT16: 1e-3}


def check_sum(element, form, trans_y):
    """The sum of C and a gradient of its size, for layers of which each axis is the longest once."""
    dtype = NUMPY_TYPES[element]
    zeta_star_node, zeta_node = (session(inputs, element, form=form, transY=trans_y, alpha=-0.5) for inputs in (ZETA_STAR, ZETA))
    for rows, features, outputs in [(7, 30, 40), (40, 30, 7), (30, 7, 40)]:
        g, a, g_bar = (x.astype(dtype) for x in layer(rows, features, outputs, rows))
        for damping_a, damping_g in [(0.5, 0.25), (np.inf, 0.25), (0.5, np.inf), (np.inf, np.inf)]:
            zeta_star = Reference(a)(g, damping_a)
            c = RNG.normal(0, np.abs(zeta_star).max(), zeta_star.T.shape if trans_y else zeta_star.shape).astype(dtype)

            def check(got, gradient):
                assert error(got, c.astype(float) - 0.5 * (gradient.T if trans_y else gradient)) < TOLERANCE[element], (rows, damping_a, damping_g)

            check(run(zeta_star_node, g, a, C=c, lambda_a=damping_a), zeta_star)
            got = run(zeta_node, g, a, C=c, GBar=g_bar, lambda_a=damping_a, lambda_g=damping_g)
            check(got, zeta(g, a, g_bar, damping_a, damping_g))


@pytest.mark.parametrize("trans_y", [0, 1])
@pytest.mark.parametrize("element", TOLERANCE)
@pytest.mark.parametrize("form", FORMS)
def test_sum(element, form, trans_y):
    check_sum(element, form, trans_y)


@pytest.mark.parametrize("form", ["samples", "features"])
def test_small_gradients_over_many_rows(form):
    """Each element of C changes by a few of its last places, which a sum that is rounded part by part would lose."""
    g, a = (np.abs(RNG.normal(size=(1500, width))).astype(np.float32) for width in (5, 8))
    c = RNG.normal(size=(5, 8)).astype(np.float32)
    place = np.spacing(np.abs(c)).astype(np.float64)
    gradient = Reference(a)(g, 1e6)
    alpha = float(np.float32(4 * np.median(place) / np.abs(gradient).max()))
    got = run(session(ZETA_STAR, form=form, alpha=alpha), g, a, C=c, lambda_a=1e6)
    assert (np.abs(got - (c + alpha * gradient)) / place).max() < 0.6


@pytest.mark.parametrize("before", list(itertools.product(["", "lambda_a"], ["", "GBar"], ["", "lambda_g"])))
def test_inputs_before_it_may_be_left_out(before):
    g, a, g_bar = (x.astype(np.float32) for x in layer(12, 8, 5, 12))
    given = {name: value for name, value in {"lambda_a": 0.5, "GBar": g_bar, "lambda_g": 0.25}.items() if name in before}
    got = run(session(("G", "A", *before, "C"), lambda_a=0.5, lambda_g=0.25), g, a, C=np.ones((5, 8)), **given)
    assert error(got, 1 + (zeta(g, a, g_bar, 0.5, 0.25) if "GBar" in before else Reference(a)(g, 0.5))) < 1e-6


def check_layers():
    g, a, c = (RNG.normal(size=(3, *shape)).astype(np.float32) for shape in [(11, 6), (11, 10), (6, 10)])
    got = run(session(ZETA_STAR, ranks=(3, 3), batched=1), g, a, C=c, lambda_a=0.3)
    for index in range(3):
        assert error(got[index], c[index] + Reference(a[index])(g[index], np.float32(0.3))) < 1e-6


def test_layers():
    check_layers()


def check_no_rows(element):
    c = RNG.normal(size=(5, 7)).astype(NUMPY_TYPES[element])
    for node in [session(ZETA_STAR, element), session(ZETA_STAR, element, alpha=2.0)]:
        assert np.array_equal(run(node, np.ones((0, 5), c.dtype), np.ones((0, 7), c.dtype), C=c, lambda_a=1.0), c)


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_no_rows(element):
    check_no_rows(element)


def test_what_is_not_finite():
    g, a, _ = (x.astype(np.float32) for x in layer(12, 8, 5, 1))
    node = session(ZETA_STAR)
    c = np.ones((5, 8), np.float32)
    c[2, 3] = np.nan
    broken = np.isnan(run(node, g, a, C=c, lambda_a=1.0))
    assert broken[2, 3] and broken.sum() == 1
    a[3, 2] = np.inf
    assert np.isnan(run(node, g, a, C=np.ones((5, 8)), lambda_a=1.0)).all()


@pytest.mark.parametrize("shape", [(8, 5), (5,), (1, 8), (5, 1), (), (1, 5, 8), (5, 9)])
def test_it_has_the_shape_of_the_output(shape):
    text = message(lambda: run(session(ZETA_STAR), np.ones((3, 5), np.float32), np.ones((3, 8), np.float32), C=np.ones(shape), lambda_a=1.0))
    assert "dense1" in text and f"input C: has the shape {list(shape)}, and the output has the shape [5, 8]" in text
