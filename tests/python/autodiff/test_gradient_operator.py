"""ai.onnx.preview.training::Gradient, written out in standard operators."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import suite
from onnx import TensorProto, defs, helper, numpy_helper
from operators import COVERED, NOT_COVERED, REFUSED, TESTED_APART

CASES = list(suite.cases(COVERED))
DIFFERENTIABLE = defs.OpSchema.DifferentiationCategory.Differentiable


def test_the_suite_is_not_empty():
    assert len(CASES) > 1700
    assert {case.operator for case in CASES} == set(COVERED)


def test_every_differentiable_operator_is_covered_or_listed_with_its_reason():
    """Those that have an input and an output that ONNX calls differentiable."""
    named = {
        schema.name
        for schema in defs.get_all_schemas()
        if schema.domain == ""
        and all(any(of.differentiation_category == DIFFERENTIABLE for of in each) for each in (schema.inputs, schema.outputs))
    }
    assert len(named) > 115
    assert named - {*COVERED, *TESTED_APART} == set(NOT_COVERED)
    documentation = (Path(__file__).parents[3] / "docs" / "gradients.md").read_text()
    for operator, reason in NOT_COVERED.items():
        assert f"- {operator}: {reason}.\n" in documentation


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_node(case):
    result = suite.measure(case)
    if isinstance(result, str):
        said = re.search(r"not differentiable with respect to its input (\d+)", result)
        if said:
            assert defs.get_schema(case.operator).inputs[int(said[1])].differentiation_category != DIFFERENTIABLE, result
        else:
            assert any(reason in result for reason in REFUSED.get(case.operator, [])), result
    else:
        in_float, in_double = result
        assert in_float <= suite.TOLERANCES.get(case.operator, suite.TOLERANCE)
        assert in_double <= suite.TOLERANCE_IN_DOUBLE


@pytest.mark.parametrize("name", ["test_gradient_of_add", "test_gradient_of_add_and_mul"])
def test_of_the_onnx_package(name, tmp_path):
    """The package's own tests of Gradient, which no released runtime passes by itself."""
    folder = suite.DATA / "simple" / name
    path, refusal = suite.lower(onnx.load(folder / "model.onnx"), tmp_path)
    assert refusal is None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    data = folder / "test_data_set_0"
    feeds = {info.name: suite.tensor(data / f"input_{i}.pb") for i, info in enumerate(session.get_inputs())}
    for i, got in enumerate(session.run(None, {name: np.asarray(value) for name, value in feeds.items()})):
        np.testing.assert_allclose(got, suite.tensor(data / f"output_{i}.pb"), rtol=1e-7)


def model(nodes, wanted, shape=(3, 4), opset=17):
    """A graph from x to y with the gradient of y with respect to `wanted`."""
    domain = "ai.onnx.preview.training"
    gradient = helper.make_node("Gradient", wanted, [f"d{name}" for name in wanted], domain=domain, xs=wanted, y="y")
    info = helper.make_tensor_value_info
    outputs = [info(f"d{name}", TensorProto.FLOAT, None) for name in wanted]
    graph = helper.make_graph([*nodes, gradient], "graph", [info("x", TensorProto.FLOAT, shape)], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)], ir_version=8)


def run(proto, folder, x):
    path, refusal = suite.lower(proto, folder)
    assert refusal is None, refusal
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})


@pytest.mark.parametrize("is_bias", [False, True])
def test_relu_stops_an_infinite_gradient(is_bias, tmp_path):
    """y = sqrt(relu(x)), or sqrt(0 + relu(x)) in a Gemm: dy/dx is 0 below zero, although that of the root is infinite there."""
    nodes = [helper.make_node("Relu", ["x"], ["r"])]
    if is_bias:
        shapes = {"a": (1, 3), "b": (3, 2)}
        zeros = {name: numpy_helper.from_array(np.zeros(shape, np.float32)) for name, shape in shapes.items()}
        nodes += [helper.make_node("Constant", [], [name], value=value) for name, value in zeros.items()]
        nodes.append(helper.make_node("Gemm", ["a", "b", "r"], ["s"]))
    nodes.append(helper.make_node("Sqrt", ["s" if is_bias else "r"], ["y"]))
    x = np.array([[-1.0, 4.0]], np.float32)
    [got] = run(model(nodes, ["x"], x.shape), tmp_path, x)
    np.testing.assert_array_equal(got, [[0, 0.25]])


@pytest.mark.parametrize("between", [[], ["Transpose"], ["MaxPool", "Flatten"]], ids=str)
def test_relu_before_a_product(between, tmp_path):
    """The gradient of the mean square of relu(x) w, with what may lie between."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((9 if "Flatten" in between else 3 if between else 4, 2)).astype(np.float32)
    attributes = {"MaxPool": {"kernel_shape": [2]}, "Transpose": {"perm": [0, 2, 1]}, "Flatten": {}}
    nodes, value = [helper.make_node("Relu", ["x"], ["r"])], "r"
    for op_type in between:
        nodes.append(helper.make_node(op_type, [value], [op_type], **attributes[op_type]))
        value = op_type
    nodes += [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w)),
        helper.make_node("MatMul", [value, "w"], ["z"]),
        helper.make_node("Mul", ["z", "z"], ["y"]),
    ]
    [got] = run(model(nodes, ["x"], x.shape), tmp_path, x)
    relu = np.maximum(x.astype(np.float64), 0)
    expected = np.zeros(x.shape)
    if "MaxPool" in between:
        last = relu[:, :, 1:] > relu[:, :, :-1]
        pooled = np.where(last, relu[:, :, 1:], relu[:, :, :-1]).reshape(2, -1)
        slope = (2 * (pooled @ w) @ w.T).reshape(last.shape)
        expected[:, :, 1:] += np.where(last, slope, 0)
        expected[:, :, :-1] += np.where(last, 0, slope)
    elif between:
        expected = (2 * (relu.swapaxes(1, 2) @ w) @ w.T).swapaxes(1, 2)
    else:
        expected = 2 * (relu @ w) @ w.T
    np.testing.assert_allclose(got, np.where(x > 0, expected, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_given_out", [False, True])
def test_relu_in_residual_blocks(is_given_out, tmp_path):
    """r = relu x, s = relu (r w + r): the sum of s v. Masks are products where all goes into products, and else a Where each."""
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    w, v = (np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32) for seed in (1, 2))
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)) for name, value in (("w", w), ("v", v))]
    nodes += [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["p"]),
        helper.make_node("Add", ["p", "r"], ["a"]),
        helper.make_node("Relu", ["a"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
    ]
    proto = model(nodes, ["x"], x.shape)
    if is_given_out:
        proto.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, None))
    path, refusal = suite.lower(proto, tmp_path)
    assert refusal is None, refusal
    masks = [node.op_type for node in onnx.load(path).graph.node if node.op_type == "Where"]
    assert masks == (["Where", "Where"] if is_given_out else [])
    got = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["dx"], {"x": x})[0]
    relu = np.maximum(x.astype(np.float64), 0)
    inner = np.where(relu @ w + relu > 0, v.sum(axis=1), 0)
    np.testing.assert_allclose(got, np.where(x > 0, inner @ w.T + inner, 0), rtol=1e-5, atol=1e-5)


def test_uses_of_a_value_add_up(tmp_path):
    """y = x tanh(x) + x²: the gradient is tanh x + x (1 - tanh² x) + 2x."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Mul", ["x", "t"], ["p"]),
        helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("Add", ["p", "s"], ["y"]),
    ]
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    (gradient,) = run(model(nodes, ["x"]), tmp_path, x)
    t = np.tanh(x.astype(np.float64))
    np.testing.assert_allclose(gradient, t + x * (1 - t * t) + 2 * x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [12, 13, 17, 18, 21])
@pytest.mark.parametrize("shape", [(3, 4), ("N", 4), None])
def test_broadcast_at_known_and_unknown_sizes(shape, opset, tmp_path):
    """A row that is added to every row of x gets the sum; where the shape is not known, that is decided at run time."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["row"], keepdims=1, **({} if opset >= 18 else {"axes": [0]})),
        helper.make_node("Mul", ["x", "row"], ["y"]),
    ]
    if opset >= 18:
        nodes.insert(0, helper.make_node("Constant", [], ["axes"], value_ints=[0]))
        nodes[1].input.append("axes")
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    proto = model(nodes, ["row"], shape, opset)
    if shape is None and opset < 13:
        _, refusal = suite.lower(proto, tmp_path)
        assert "before opset 13" in refusal
        return
    (gradient,) = run(proto, tmp_path, x)
    np.testing.assert_array_equal(gradient, x.sum(axis=0, keepdims=True))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("opset", [13, 16])
def test_rows_gathered_twice_add_up(axis, opset, tmp_path):
    """Before opset 16 no scatter adds: the gradient is a product with ones at the indices."""
    nodes = [
        helper.make_node("Constant", [], ["indices"], value_ints=[2, 0, 2]),
        helper.make_node("Gather", ["x", "indices"], ["rows"], axis=axis),
        helper.make_node("Mul", ["rows", "rows"], ["y"]),
    ]
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    (gradient,) = run(model(nodes, ["x"], opset=opset), tmp_path, x)
    times = np.zeros(x.shape[axis], np.float32)
    np.add.at(times, [2, 0, 2], 1)
    np.testing.assert_array_equal(gradient, 2 * x * (times[:, None] if axis == 0 else times))


@pytest.mark.parametrize("batch_dims", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 2])
def test_gather_nd_in_batches(depth, batch_dims, tmp_path):
    """Rows that are taken twice, by indices that count from the end too, add up; every batch has its own."""
    shape = (2, 3, 4, 5, 2)
    random = np.random.default_rng(depth)
    limits = shape[batch_dims : batch_dims + depth]
    indices = np.stack([random.integers(-size, size, (*shape[:batch_dims], 6)) for size in limits], axis=-1)
    indices[..., -1, :] = indices[..., 0, :]
    nodes = [
        helper.make_node("Constant", [], ["indices"], value=numpy_helper.from_array(indices)),
        helper.make_node("GatherND", ["x", "indices"], ["rows"], batch_dims=batch_dims),
        helper.make_node("Mul", ["rows", "rows"], ["y"]),
    ]
    x = random.integers(-9, 9, shape).astype(np.float32)
    (gradient,) = run(model(nodes, ["x"], shape, 17), tmp_path, x)
    times = np.zeros(shape)
    for batch in np.ndindex(shape[:batch_dims]):
        for index in indices[batch]:
            times[(*batch, *index)] += 1
    assert times.max() > 1
    np.testing.assert_array_equal(gradient, 2 * x * times)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [13, 18])
def test_products_with_zeros(opset, keepdims, tmp_path):
    """The gradient of an element is the product of the others, whether it or one of them is zero."""
    nodes = [helper.make_node("ReduceProd", ["x"], ["y"], keepdims=keepdims, **({} if opset >= 18 else {"axes": [1]}))]
    if opset >= 18:
        nodes.insert(0, helper.make_node("Constant", [], ["axes"], value_ints=[1]))
        nodes[1].input.append("axes")
    x = np.array([[2, -3, 4], [0, 5, 6], [7, 0, 0], [0, 0, 0]], np.float32)
    (gradient,) = run(model(nodes, ["x"], x.shape, opset), tmp_path, x)
    np.testing.assert_array_equal(gradient, [[-12, 8, -6], [30, 0, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_dropout_passes_on_what_it_kept(constant, is_training, tmp_path):
    """Ratio and mode may be inputs of the graph; the gradient of a kept element is 1 / (1 - ratio)."""
    settings = {"ratio": np.array(0.75, np.float32), "mode": np.array(is_training)}
    proto = model([helper.make_node("Dropout", ["x", *settings], ["y", "mask"])], ["x"], (30, 40), 13)
    for name, value in settings.items():
        if constant:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        else:
            proto.graph.input.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), []))
    proto.graph.output.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, None))
    path, refusal = suite.lower(proto, tmp_path)
    assert refusal is None, refusal
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((30, 40), np.float32)} | ({} if constant else settings)
    gradient, mask = session.run(None, feeds)
    assert mask.all() if not is_training else 200 < mask.sum() < 400
    np.testing.assert_allclose(gradient, mask * (4 if is_training else 1), rtol=1e-6)


def test_all_operators_without_a_rule_are_named(tmp_path):
    regions = ["regions", "images"]
    nodes = [
        helper.make_node("Constant", [], ["regions"], value=numpy_helper.from_array(np.zeros((1, 4), np.float32))),
        helper.make_node("Constant", [], ["images"], value_ints=[0]),
        helper.make_node("RoiAlign", ["x", *regions], ["d"], name="first"),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("RoiAlign", ["r", *regions], ["l"], name="second"),
        helper.make_node("Add", ["d", "l"], ["y"]),
    ]
    path, refusal = suite.lower(model(nodes, ["x"], (1, 1, 4, 4)), tmp_path)
    assert path is None
    assert "2 operators cannot be differentiated" in refusal
    assert "RoiAlign 'first': there is no gradient rule" in refusal and "RoiAlign 'second'" in refusal
    assert "on the way to x" in refusal


def test_what_the_operator_is_fed_has_to_be_its_xs(tmp_path):
    proto = model([helper.make_node("Relu", ["x"], ["y"])], ["x"])
    proto.graph.node[1].input[0] = "y"
    _, refusal = suite.lower(proto, tmp_path)
    assert "'x' is fed another value" in refusal


def test_nothing_depends_on_x(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    ]
    (gradient,) = run(model(nodes, ["x"]), tmp_path, np.ones((3, 4), np.float32))
    np.testing.assert_array_equal(gradient, np.zeros((3, 4)))
