"""Inputs that are singular, not finite, or wrong; and runs at the same time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from isaac_gemm import Reference, error, message, run, session

RNG = np.random.default_rng(11)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


SINGULAR = {
    "zero rows": lambda a: a * (np.arange(len(a)) % 3 != 0)[:, None].astype(np.float32),
    "zero columns": lambda a: a * (np.arange(a.shape[1]) % 3 != 0).astype(np.float32),
    "repeated rows": lambda a: np.repeat(a[:4], len(a) // 4 + 1, axis=0)[: len(a)],
    "one row": lambda a: np.repeat(a[:1], len(a), axis=0),
    "rank 3": lambda a: (normal(len(a), 3) @ normal(3, a.shape[1])),
    "all zero": lambda a: a * 0,
}


@pytest.mark.parametrize("form", ["samples", "features"])
@pytest.mark.parametrize("kind", SINGULAR)
def test_singular_inputs(kind, form):
    node = session(("G", "A", "lambda_a"), form=form)
    for rows, features, outputs in [(20, 50, 30), (20, 50, 80), (90, 30, 40), (90, 30, 200)]:
        g, a = normal(rows, outputs), SINGULAR[kind](normal(rows, features))
        reference = Reference(a)
        for damping in [1e-3, 1e-2, 0.1, 1.0, 100.0]:
            assert error(run(node, g, a, lambda_a=damping), reference(g, np.float32(damping))) < 1e-5, damping


@pytest.mark.parametrize("form", ["samples", "features"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad, form):
    for rows, features, outputs in [(12, 30, 20), (12, 20, 30), (40, 8, 50), (40, 8, 20)]:
        node = session(lambda_a=0.5, form=form)
        g, a = normal(rows, outputs), normal(rows, features)
        a[3, 2] = bad
        assert np.isnan(run(node, g, a)).all()
        g, a = normal(rows, outputs), normal(rows, features)
        g[3, 2] = bad
        broken = ~np.isfinite(run(node, g, a))
        assert broken[2].all() and broken.sum() == features
    assert np.isfinite(run(node, normal(5, 4), normal(5, 3))).all(), "a later call is not affected"


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e18])
def test_extreme_scales(scale):
    """Squares of these inputs leave the range of a float; the result does not."""
    node = session(("G", "A", "lambda_a"))
    g, a = normal(16, 12), (normal(16, 20) * np.float32(scale))
    damping = np.float32(0.3 * min(max(scale**2, 1e-37), 1e37))
    assert error(run(node, g, a, lambda_a=damping), Reference(a)(g, damping)) < 1e-5


@pytest.mark.parametrize("damping", [0.0, -1.0, np.nan, -np.inf])
def test_damping_must_be_positive(damping):
    node = session(("G", "A", "lambda_a"))
    text = message(lambda: run(node, normal(3, 2), normal(3, 2), lambda_a=damping))
    assert "dense1" in text and "lambda_a must be greater than zero" in text
    text = message(lambda: session(lambda_a=damping))
    assert "dense1" in text and "lambda_a must be greater than zero" in text


@pytest.mark.parametrize(
    "g, a, attributes",
    [
        ((3, 2), (4, 2), {}),
        ((3, 2), (1, 3, 2), {}),
        ((2, 3, 4), (3, 2, 4), {}),
        ((3, 2), (3, 2), {"batched": 1}),
        ((3, 2), (3, 5), {"transG": 1}),
        ((1, 3, 2), (1, 3, 2), {"transA": 1}),
        ((2,), (2,), {}),
    ],
)
def test_wrong_shapes(g, a, attributes):
    node = session(ranks=(len(g), len(a)), lambda_a=1.0, **attributes)
    text = message(lambda: run(node, normal(*g), normal(*a)))
    assert "dense1" in text and str(list(g)) in text and str(list(a)) in text


@pytest.mark.parametrize(
    "attributes, expected",
    [
        ({"transG": 2}, "attribute transG: must be 0 or 1, not 2"),
        ({"batched": -1}, "attribute batched: must not be negative"),
        ({"form": "gram"}, 'attribute form: "gram" is not one of'),
        ({"lambda_a": 1}, "attribute lambda_a: must be of type FLOAT, not INT"),
        ({"alpha": "one"}, "attribute alpha: must be of type FLOAT, not STRING"),
        ({"transY": 1.0}, "attribute transY: must be of type INT, not FLOAT"),
        ({"lambda_g": 0.0}, "lambda_g must be greater than zero"),
    ],
)
def test_wrong_attributes(attributes, expected):
    text = message(lambda: session(**{"lambda_a": 1.0, **attributes}))
    assert "dense1" in text and expected in text


def test_damping_is_needed():
    text = message(lambda: run(session(), normal(3, 2), normal(3, 2)))
    assert "dense1" in text and "lambda_a is given neither as an attribute nor as an input" in text


def test_damping_is_one_number():
    node = session(("G", "A", "lambda_a"))
    text = message(lambda: run(node, normal(3, 2), normal(3, 2), lambda_a=[1.0, 2.0]))
    assert "lambda_a" in text


def test_too_little_damping_names_the_pivot():
    node = session(("G", "A", "lambda_a"), form="samples")
    a = np.repeat(normal(1, 50), 4, axis=0) * np.float32(1e3)
    text = message(lambda: run(node, normal(4, 3), a, lambda_a=1e-30))
    assert "dense1" in text and "pivot" in text and "lambda" in text


def test_a_node_without_a_name_is_called_by_its_output():
    text = message(lambda: session(lambda_a=-1.0, name=""))
    assert '"Y"' in text


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_runs_of_one_session(threads):
    """Different shapes and dampings at the same time, of a size at which buffers would be overwritten if shared."""
    node = session(("G", "A", "lambda_a"), threads=threads)
    cases = []
    for rows, features, outputs, damping in [(60, 200, 150, 1.0), (33, 90, 210, 1e-3), (150, 40, 60, 0.1), (8, 300, 9, 5.0)]:
        g, a = normal(rows, outputs), np.abs(normal(rows, features))
        cases.append((g, a, np.float32(damping), run(node, g, a, lambda_a=damping)))
        assert error(cases[-1][3], Reference(a)(g, np.float32(damping))) < 1e-5

    def repeat(index):
        g, a, damping, expected = cases[index % len(cases)]
        return all(np.array_equal(run(node, g, a, lambda_a=damping), expected) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(repeat, range(16)))


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("form", ["samples", "features"])
def test_products_in_parts(form, threads):
    """Layers large enough that inner products, inverses by blocks and their products are shared between threads."""
    node = session(threads=threads, lambda_a=1.0, form=form)
    for rows, features, outputs in [(700, 300, 200), (300, 900, 400)]:
        g, a = normal(rows, outputs), np.maximum(normal(rows, features), 0)
        assert error(run(node, g, a), Reference(a)(g, np.float32(1.0))) < 1e-5


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_substitution_in_parts(transposed, threads):
    """Layers of which the damped Gram matrix is factorised, and either operand conditioned, with a factor and an addend."""
    attributes = dict(lambda_a=4.0, alpha=-0.5, transY=int(transposed), form="samples")
    node = session(("G", "A", "", "", "", "C"), threads=threads, **attributes)
    for rows, features, outputs in [(400, 400, 400), (256, 300, 700), (130, 700, 90)]:
        g, a, c = normal(rows, outputs), normal(rows, features), normal(outputs, features)
        expected = -0.5 * Reference(a)(g, np.float32(4.0)) + c
        if transposed:
            c, expected = c.T.copy(), expected.T
        assert error(run(node, g, a, C=c), expected) < 1e-6
