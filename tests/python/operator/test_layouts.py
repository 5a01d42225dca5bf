"""Attributes that say how operands and result are stored, and what shape inference makes of them."""

import itertools

import numpy as np
import onnxruntime
import pytest
from isaac_gemm import NUMPY_TYPES, Reference, error, load, run, session
from onnx import TensorProto, helper

RNG = np.random.default_rng(7)


def layer(rows, features, outputs):
    return RNG.normal(size=(rows, outputs)).astype(np.float32), RNG.normal(size=(rows, features)).astype(np.float32)


@pytest.mark.parametrize("rows", [9, 70])
@pytest.mark.parametrize("trans_g, trans_a, trans_y", list(itertools.product([0, 1], repeat=3)))
@pytest.mark.parametrize("form", ["auto", "samples", "features"])
def test_transposed(rows, trans_g, trans_a, trans_y, form):
    g, a = layer(rows, 40, 25)
    attributes = dict(lambda_a=0.5, transG=trans_g, transA=trans_a, transY=trans_y, form=form)
    got = run(session(**attributes), g.T.copy() if trans_g else g, a.T.copy() if trans_a else a)
    expected = Reference(a)(g, 0.5)
    assert error(got, expected.T if trans_y else expected) < 1e-5


@pytest.mark.parametrize("alpha", [1.0, -0.25, 0.0])
@pytest.mark.parametrize("damping", [0.125, np.inf])
def test_alpha(alpha, damping):
    g, a = layer(12, 8, 5)
    got = run(session(lambda_a=damping, alpha=alpha), g, a)
    assert error(got, alpha * Reference(a)(g, damping)) < 1e-5


def test_leading_dimensions_are_rows():
    g, a = layer(24, 10, 6)
    expected = Reference(a)(g, 2.0)
    for shape in [(4, 6), (2, 3, 4), (24, 1)]:
        node = session(lambda_a=2.0, ranks=(len(shape) + 1,) * 2)
        assert error(run(node, g.reshape(*shape, 6), a.reshape(*shape, 10)), expected) < 1e-5


@pytest.mark.parametrize("trans_y", [0, 1])
@pytest.mark.parametrize("batched, leading, rows", [(1, (3,), (11,)), (1, (3,), (4, 5)), (2, (2, 3), (11,))])
def test_batched(batched, leading, rows, trans_y):
    g = RNG.normal(size=(*leading, *rows, 6)).astype(np.float32)
    a = RNG.normal(size=(*leading, *rows, 10)).astype(np.float32)
    node = session(lambda_a=0.3, batched=batched, transY=trans_y, ranks=(g.ndim, a.ndim))
    got = run(node, g, a)
    assert got.shape == (*leading, *((10, 6) if trans_y else (6, 10)))
    for index in np.ndindex(*leading):
        expected = Reference(a[index].reshape(-1, 10))(g[index].reshape(-1, 6), 0.3)
        assert error(got[index], expected.T if trans_y else expected) < 1e-5


def test_no_layers_and_no_features():
    node = session(lambda_a=1.0, batched=1, ranks=(3, 3))
    assert run(node, np.ones((0, 4, 3), np.float32), np.ones((0, 4, 2), np.float32)).shape == (0, 3, 2)
    node = session(lambda_a=1.0)
    assert run(node, np.ones((4, 0), np.float32), np.ones((4, 2), np.float32)).shape == (0, 2)
    assert run(node, np.ones((4, 3), np.float32), np.ones((4, 0), np.float32)).shape == (3, 0)


def test_runtime_damping_overrides_the_attribute():
    g, a = layer(10, 8, 5)
    node = session(("G", "A", "lambda_a"), lambda_a=1.0)
    for damping in [1e-2, 1.0, 1e4]:
        assert error(run(node, g, a, lambda_a=damping), Reference(a)(g, np.float32(damping))) < 1e-5
    assert error(run(node, g, a, lambda_a=np.inf), g.T.astype(float) @ a) < 1e-6


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_damping_may_have_another_type_and_be_a_vector_of_one(element):
    g, a = layer(10, 8, 5)
    damping = np.array([0.75], NUMPY_TYPES[element])
    nodes = [helper.make_node("IsaacGemm", ["G", "A", "damping"], ["Y"], domain="ai.isaac")]
    shapes = {"G": (TensorProto.FLOAT, g.shape), "A": (TensorProto.FLOAT, a.shape), "damping": (element, [1])}
    inputs = [helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)]
    got = load(helper.make_graph(nodes, "layer", inputs, outputs)).run(None, {"G": g, "A": a, "damping": damping})[0]
    assert error(got, Reference(a)(g, 0.75)) < 1e-5


@pytest.mark.parametrize("element, tolerance", [(TensorProto.FLOAT16, 1e-3), (TensorProto.BFLOAT16, 8e-3)])
def test_half_precisions(element, tolerance):
    """The inputs are rounded, the computation is not: the only other error is the rounding of the result."""
    g, a = layer(20, 12, 9)
    nodes = [
        helper.make_node("Cast", ["G"], ["Gh"], to=element),
        helper.make_node("Cast", ["A"], ["Ah"], to=element),
        helper.make_node("IsaacGemm", ["Gh", "Ah"], ["Yh"], domain="ai.isaac", lambda_a=1e-3),
        helper.make_node("Cast", ["Gh"], ["Gf"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["Ah"], ["Af"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["Yh"], ["Y"], to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", name]) for name in "GA"]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ["Y", "Gf", "Af"]]
    got, g, a = load(helper.make_graph(nodes, "layer", inputs, outputs)).run(None, {"G": g, "A": a})
    assert error(got, Reference(a)(g, np.float32(1e-3))) < tolerance


@pytest.mark.parametrize(
    "shapes, attributes, expected",
    [
        ([["b", "m"], ["b", "n"]], {}, ["m", "n"]),
        ([["b", 7], ["b", 5]], {"transY": 1}, [5, 7]),
        ([["m", "b"], ["n", "b"]], {"transG": 1, "transA": 1}, ["m", "n"]),
        ([["e", "b", "m"], ["e", "b", 5]], {"batched": 1}, ["e", "m", 5]),
        ([["b", "t", 7], ["b", "t", "n"]], {}, [7, "n"]),
    ],
)
def test_inferred_shapes(shapes, attributes, expected):
    """Not by runtimes up to 1.19, in which inference would read the types of inputs that are left out."""
    infers = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 20)
    assert session(shapes=shapes, lambda_a=1.0, **attributes).get_outputs()[0].shape == (expected if infers else [])


def test_unknown_shapes_load_and_run():
    g, a = layer(6, 4, 3)
    for shapes in [(None, None), ([None, None], [None, "n"]), (None, [6, 4])]:
        assert error(run(session(shapes=shapes, lambda_a=1.0), g, a), Reference(a)(g, 1.0)) < 1e-5
