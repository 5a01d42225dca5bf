"""Layer normalization becomes one operator, which gives its statistics to the backward pass: against central differences in double."""

import numpy as np
import onnx
import pytest
from graphs import Training, make, relative_error
from net import NUMPY, Net
from networks import parameter
from onnx import TensorProto, helper

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
EPSILON = 1e-3
SHAPE = (3, 4, 5)


def op(net, op_type, *inputs, **attributes):
    return net.op(op_type, *inputs, into=f"{op_type}{len(net.nodes)}", **attributes)


def written_out(net, x, scale, bias, axes=(-1,), square="Pow", turned=False, opset=17):
    """d = x - mean x, d / √(mean d² + ε) · scale + bias, in the operators of exporters."""

    def mean(value):
        if opset < 18:
            return op(net, "ReduceMean", value, axes=axes)
        return op(net, "ReduceMean", value, net.constant(f"axes of {value}", np.array(axes)))

    def both(op_type, left, right):
        return op(net, op_type, *((right, left) if turned else (left, right)))

    centred = op(net, "Sub", x, mean(x))
    squared = op(net, square, centred, net.constant("two", 2) if square == "Pow" else centred)
    shifted = both("Add", mean(squared), net.constant("epsilon", EPSILON))
    unit = op(net, "Div", centred, op(net, "Sqrt", shifted))
    return both("Add", both("Mul", unit, scale), bias)


def network(element=FLOAT, opset=17, rows=SHAPE[-1:], normalize=written_out, **options):
    """tanh of a normalization of (x w), where `rows` is the shape of scale and bias."""
    net = Net(opset=opset, element=element)
    random, dtype = np.random.default_rng(1), NUMPY[element]
    net.data("x", ["N", *SHAPE[1:]], SHAPE)
    shapes = {"w": (SHAPE[-1], SHAPE[-1]), "scale": rows, "bias": rows}
    for name, shape in shapes.items():
        parameter(net, name, random.normal(size=shape).astype(dtype))
    options = {"opset": opset} | options if normalize is written_out else options
    value = normalize(net, net.op("MatMul", "x", "w", into="h"), "scale", "bias", **options)
    net.op("Tanh", value, into="y")
    net.output("y", ["N", *SHAPE[1:]])
    return net


def operator(net, x, scale, bias, axis=-1):
    return op(net, "LayerNormalization", x, scale, bias, axis=axis, epsilon=EPSILON)


def loss(parameters, x, target, axes):
    h = x @ parameters["w"]
    centred = h - h.mean(axis=axes, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + EPSILON)
    return ((np.tanh(unit * parameters["scale"] + parameters["bias"]) - target) ** 2).mean()


def differences(parameters, x, target, axes):
    """By parameter: its gradient."""
    wide = {name: value.astype(np.float64) for name, value in parameters.items()}
    gradients, h = {}, 1e-6
    for name, value in wide.items():
        gradient = np.empty(value.size)
        for i in range(value.size):
            step = np.zeros(value.size)
            step[i] = h
            above, below = (loss(wide | {name: value + s * step.reshape(value.shape)}, x, target, axes) for s in (1, -1))
            gradient[i] = (above - below) / (2 * h)
        gradients[name] = gradient.reshape(value.shape)
    return gradients


def check(net, folder, axes=(-1,), tolerance=2e-6):
    """The training graph's gradients are right; how many operators of which kind it has."""
    model = make(net.model(), folder, "--loss", "mse", "--optimizer", "none", "--method", "gradient")
    onnx.checker.check_model(model, full_check=True)
    x, target = (np.random.default_rng(seed).normal(size=SHAPE).astype(NUMPY[net.element]) for seed in (2, 3))
    training = Training(model)
    got = training.gradients({"x": x, training.map["labels"][0]: target})
    expected = differences(net.parameters, x.astype(np.float64), target.astype(np.float64), axes)
    assert got.keys() == expected.keys()
    for name in expected:
        assert relative_error(got[name], expected[name]) < tolerance, name
    return [node for node in model.graph.node if node.op_type == "LayerNormalization"], model


@pytest.mark.parametrize("turned", [False, True], ids=["as exported", "operands turned"])
@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("opset", [14, 17, 18])
def test_written_out(opset, square, turned, tmp_path):
    [one], model = check(network(opset=opset, square=square, turned=turned), tmp_path)
    assert list(one.input[1:]) == ["scale", "bias"] and all(one.output) and len(one.output) == 3
    assert helper.get_node_attr_value(one, "epsilon") == np.float32(EPSILON)
    assert not any(node.op_type == "Sqrt" for node in model.graph.node)


def test_over_two_axes(tmp_path):
    [one], _ = check(network(rows=SHAPE[1:], axes=(-2, -1)), tmp_path, axes=(-2, -1))
    assert helper.get_node_attr_value(one, "axis") == 1


@pytest.mark.parametrize("rows, axis", [(SHAPE[-1:], -1), (SHAPE[1:], 1)], ids=str)
def test_the_operator_itself(rows, axis, tmp_path):
    axes = tuple(range(axis % len(SHAPE), len(SHAPE)))
    [one], model = check(network(rows=rows, normalize=operator, axis=axis), tmp_path, axes)
    assert all(one.output) and len(one.output) == 3
    assert not any(node.op_type in ("Sqrt", "Reciprocal") for node in model.graph.node)


@pytest.mark.parametrize(
    "case",
    [
        {"element": DOUBLE},
        {"axes": (1,), "rows": (4, 1)},
        {"rows": (4, 5)},
        {"rows": (1,)},
    ],
    ids=["double", "over an axis in the middle", "a scale for each place", "one scale"],
)
def test_stays_written_out(case, tmp_path):
    """What the operator does not compute, or not in this precision."""
    tolerance = 1e-8 if case.get("element") == DOUBLE else 2e-6
    found, _ = check(network(**case), tmp_path, case.get("axes", (-1,)), tolerance)
    assert not found


def test_what_no_gradient_goes_through_stays_written_out(tmp_path):
    net = network()
    net.nodes[-1].output[0] = "features"
    net.op("Mul", "features", parameter(net, "last", np.ones(SHAPE[-1], np.float32)), into="y")
    frozen = [option for name in ("w", "scale", "bias") for option in ("--freeze", name)]
    model = make(net.model(), tmp_path, "--loss", "mse", "--method", "gradient", *frozen)
    assert not any(node.op_type == "LayerNormalization" for node in model.graph.node)


@pytest.mark.parametrize("value", ["Sub", "Sqrt", "Div", "Mul"])
def test_an_intermediate_value_that_is_read(value, tmp_path):
    """A graph that gives one of them out keeps all of them."""
    net = network()
    node = next(node for node in net.nodes if node.op_type == value)
    net.output(node.output[0], ["N", SHAPE[1], 1 if value == "Sqrt" else SHAPE[2]])
    source = net.model()
    # The loss is of the first output.
    model = make(source, tmp_path, "--loss", "mse", "--prediction", "y", "--optimizer", "none", "--method", "gradient")
    assert not any(node.op_type == "LayerNormalization" for node in model.graph.node)
    onnx.checker.check_model(model, full_check=True)


def test_the_same_step_as_written_out(tmp_path):
    """Inputs far from zero, where a variance from squares has fewer digits than one from differences."""
    random = np.random.default_rng(5)
    x, target = random.normal(size=SHAPE).astype(np.float32) + 30, random.normal(size=SHAPE).astype(np.float32)
    steps = []
    for element in (FLOAT, DOUBLE):
        net = network(element=element)
        training = Training(make(net.model(), tmp_path, "--loss", "mse", "--method", "gradient"), fuses=False)
        cast = {name: value.astype(NUMPY[element]) for name, value in (("x", x), (training.map["labels"][0], target))}
        training.step({**cast, "lr": np.float32(0.1)})
        steps.append(training.carried)
    for name in steps[0]:
        assert relative_error(steps[0][name], steps[1][name]) < 1e-5, name
