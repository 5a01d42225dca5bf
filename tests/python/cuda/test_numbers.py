"""Conditioned gradients from the kernels of kernels.ptx, against the float64 formula of the operator's other tests."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from isaac_gemm import Reference, error, run, session
from onnx import TensorProto
from test_addend import check_layers, check_no_rows, check_sum

RNG = np.random.default_rng(19)
ROWS = [1, 2, 7, 31, 32, 33, 60, 64, 100, 128, 150]
FEATURES = [1, 10, 100]
OUTPUTS = [1, 10, 100, 400]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def after_relu(rows, features):
    """With a common mean that dominates the curvature."""
    return np.maximum(RNG.normal(0.3, 1.0, (rows, features)), 0).astype(np.float32)


@pytest.mark.parametrize("form", ["auto", "samples", "features"])
@pytest.mark.parametrize("rows", ROWS)
def test_grid(rows, form):
    """Outputs are only the runtime's product: each of their counts meets each damping."""
    node = session(("G", "A", "lambda_a"), form=form)
    for shift, features in enumerate(FEATURES):
        a = after_relu(rows, features)
        for damping, outputs in zip(map(np.float32, [1e-3, 0.1, 10.0, 1e6]), np.roll(OUTPUTS, shift)):
            g = normal(rows, outputs)
            relative = error(run(node, g, a, lambda_a=damping), Reference(a)(g, damping))
            assert relative < 1e-5, (features, outputs, damping, relative)


@pytest.mark.parametrize("rows, form", [(257, "samples"), (257, "features"), (1024, "features")])
def test_many_rows(rows, form):
    node = session(("G", "A", "lambda_a"), form=form)
    for features, damping in zip(FEATURES, np.float32([1e-3, 10, 0.1])):
        g, a = normal(rows, 10), after_relu(rows, features)
        assert error(run(node, g, a, lambda_a=damping), Reference(a)(g, damping)) < 1e-5, (features, damping)


@pytest.mark.parametrize("rows", [9, 70])
@pytest.mark.parametrize("trans_g, trans_a, trans_y", list(itertools.product([0, 1], repeat=3)))
@pytest.mark.parametrize("form", ["auto", "samples", "features"])
def test_transposed(rows, trans_g, trans_a, trans_y, form):
    g, a = normal(rows, 25), normal(rows, 40)
    node = session(lambda_a=0.5, transG=trans_g, transA=trans_a, transY=trans_y, form=form, alpha=-2.0)
    got = run(node, g.T.copy() if trans_g else g, a.T.copy() if trans_a else a)
    expected = -2 * Reference(a)(g, 0.5)
    assert error(got, expected.T if trans_y else expected) < 1e-5


@pytest.mark.parametrize("trans_y", [0, 1])
@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("form", ["samples", "features"])
def test_what_a_gradient_is_added_to(element, form, trans_y):
    check_sum(element, form, trans_y)


def test_what_gradients_of_layers_and_of_nothing_are_added_to():
    check_layers()
    for element in [TensorProto.FLOAT, TensorProto.FLOAT16]:
        check_no_rows(element)


@pytest.mark.parametrize("batched, leading, rows", [(1, (3,), (4, 5)), (2, (2, 3), (11,))])
def test_batched(batched, leading, rows):
    g, a = normal(*leading, *rows, 6), normal(*leading, *rows, 10)
    got = run(session(lambda_a=0.3, batched=batched, ranks=(g.ndim, a.ndim)), g, a)
    for index in np.ndindex(*leading):
        assert error(got[index], Reference(a[index].reshape(-1, 10))(g[index].reshape(-1, 6), 0.3)) < 1e-5


def sampled(rows, outputs):
    """As those of a softmax: they sum to zero, and one of them is large."""
    gradients = RNG.dirichlet(np.ones(outputs), rows) - np.eye(outputs)[RNG.integers(outputs, size=rows)]
    return gradients.astype(np.float32)


@pytest.mark.parametrize("form", ["auto", "samples", "features", "kronecker"])
def test_the_second_factor(form):
    node = session(("G", "A", "lambda_a", "GBar", "lambda_g"), form=form)
    shapes = [(1, 4, 3, 1), (30, 20, 40, 60), (60, 50, 12, 60), (90, 20, 10, 5), (150, 30, 60, 150)]
    for rows, features, outputs, sampled_rows in shapes:
        g, a, g_bar = normal(rows, outputs), after_relu(rows, features), sampled(sampled_rows, outputs)
        for damping_a, damping_g in np.float32([(1e-3, 1e-5), (0.1, 1e-2), (1, 1), (np.inf, 1e-2), (0.1, np.inf)]):
            got = run(node, g, a, GBar=g_bar, lambda_a=damping_a, lambda_g=damping_g)
            curvature = np.eye(outputs) + g_bar.T.astype(float) @ g_bar / (rows * float(damping_g))
            expected = np.linalg.solve(curvature, Reference(a)(g, damping_a))
            assert error(got, expected) < 1e-5, (rows, damping_a, damping_g)


@pytest.mark.parametrize("form", ["auto", "samples", "features", "kronecker"])
def test_gradients_in_the_span_of_the_sampled_ones(form):
    """Everything is damped, so that what is left of g is much smaller than g."""
    node = session(("G", "A", "lambda_a", "GBar", "lambda_g"), form=form)
    g, a = sampled(40, 80), after_relu(40, 60)
    for damping in np.float32([1e-4, 1e-2, 1]):
        got = run(node, g, a, GBar=g, lambda_a=1, lambda_g=damping)
        curvature = np.eye(80) + g.T.astype(float) @ g / (40 * float(damping))
        assert error(got, np.linalg.solve(curvature, Reference(a)(g, 1))) < 1e-5, damping


def test_float16():
    g, a = normal(20, 9).astype(np.float16), normal(20, 12).astype(np.float16)
    got = run(session(element=TensorProto.FLOAT16, lambda_a=1e-3), g, a)
    assert error(got, Reference(a)(g, np.float32(1e-3))) < 1e-3


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_bfloat16():
    g, a = ((normal(20, size).view(np.uint32) >> 16).astype(np.uint16) for size in (9, 12))
    node = session(element=TensorProto.BFLOAT16, lambda_a=1e-3)
    values = {"G": g, "A": a, "Y": np.zeros((9, 12), np.uint16)}
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
        for name, bits in values.items()
    }
    binding = node.io_binding()
    binding.bind_ortvalue_input("G", values["G"])
    binding.bind_ortvalue_input("A", values["A"])
    got = np.zeros((9, 12), np.uint16)
    binding.bind_output("Y", "cpu", 0, TensorProto.BFLOAT16, got.shape, got.ctypes.data)
    node.run_with_iobinding(binding)
    assert error(widened(got), Reference(widened(a))(widened(g), np.float32(1e-3))) < 8e-3


@pytest.mark.parametrize("form", ["samples", "features"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad, form):
    node = session(lambda_a=0.5, form=form)
    g, a = normal(12, 20), normal(12, 15)
    a[3, 2] = bad
    assert np.isnan(run(node, g, a)).all()
    g, a = normal(12, 20), normal(12, 15)
    g[3, 2] = bad
    broken = ~np.isfinite(run(node, g, a))
    assert broken[2].all() and broken.sum() == 15


def test_threads_on_one_session():
    """Of sizes at which scratch memory would be overwritten if it was shared."""
    node = session(("G", "A", "lambda_a"))
    cases = []
    for rows, features, outputs, damping in np.float32([(40, 90, 30, 1), (33, 20, 60, 0.1), (70, 40, 20, 0.5), (8, 100, 9, 5)]):
        g, a = normal(int(rows), int(outputs)), after_relu(int(rows), int(features))
        cases.append((g, a, damping, run(node, g, a, lambda_a=damping)))
        assert error(cases[-1][3], Reference(a)(g, damping)) < 1e-5

    def repeat(index):
        g, a, damping, expected = cases[index]
        return all(np.array_equal(run(node, g, a, lambda_a=damping), expected) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(repeat, range(4)))


def test_a_failed_factorisation_is_told_at_the_next_call():
    node = session(("G", "A", "lambda_a"), form="samples")
    # Equal rows, all powers of two: nothing is left of the second pivot, not even by rounding.
    g, a = normal(4, 3), np.full((4, 64), 2, np.float32)
    assert np.isnan(run(node, g, a, lambda_a=2.0**-60)).all()
    with pytest.raises(Exception, match="dense1.*order 4.*lambda = 8.67.*e-19.*earlier call.*pivot"):
        run(node, g, a, lambda_a=1.0)
    assert np.isfinite(run(node, g, a, lambda_a=1.0)).all()
