"""Max pooling tells the places that its gradient goes to, and goes before a Relu: against NumPy in double."""

import itertools

import numpy as np
import onnx
import pytest
from graphs import Training, make, relative_error
from net import Net
from networks import parameter
from onnx import TensorProto, helper

SHAPE = (3, 2, 6, 5)
POOLS = {
    "apart": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "overlapping, padded": {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
    "by columns": {"kernel_shape": [2, 2], "strides": [2, 2], "storage_order": 1},
}
IN_PLACE = {"kernel_shape": [2, 2], "strides": [1, 1]}


def network(**pool):
    """The largest of max(x · scale, 0) in windows, where the scale is a parameter."""
    net = Net(element=TensorProto.DOUBLE)
    net.data("x", ["N", *SHAPE[1:]], SHAPE)
    parameter(net, "scale", np.random.default_rng(1).normal(size=SHAPE[1:]))
    net.op("Mul", "x", "scale", into="h")
    net.op("Relu", "h", into="r")
    net.op("MaxPool", "r", into="y", **pool)
    net.output("y", ["N", *result_shape(**pool)[1:]])
    return net


def result_shape(kernel_shape, strides, pads=(0, 0, 0, 0), **_):
    sizes = (size + begin + end for size, begin, end in zip(SHAPE[2:], pads[:2], pads[2:]))
    return *SHAPE[:2], *((size - kernel) // stride + 1 for size, kernel, stride in zip(sizes, kernel_shape, strides))


def expected_gradient(x, scale, target, kernel_shape, strides, pads=(0, 0, 0, 0), **_):
    """Of the mean square of the distance from the target, by the first largest element of each window."""
    h = np.maximum(x * scale, 0)
    begin, end = (((0, 0), (0, 0), *((p, 0) for p in pads[:2])), ((0, 0), (0, 0), *((0, p) for p in pads[2:])))
    padded = np.pad(np.pad(h, begin, constant_values=-np.inf), end, constant_values=-np.inf)
    gradient = np.zeros_like(padded)
    for place in itertools.product(*map(range, target.shape)):
        corner = [at * stride for at, stride in zip(place[2:], strides)]
        window = place[:2] + tuple(slice(at, at + size) for at, size in zip(corner, kernel_shape))
        seen = padded[window]
        first = np.unravel_index(seen.argmax(), seen.shape)
        gradient[window][first] += 2 * (seen.max() - target[place]) / target.size
    inner = gradient[:, :, pads[0] : pads[0] + h.shape[2], pads[1] : pads[1] + h.shape[3]]
    return (inner * (x * scale > 0) * x).sum(0)


def check(net, folder, pool):
    """The training graph's gradients are right. Returns its nodes."""
    options = ["--loss", "mse", "--prediction", "y", "--optimizer", "none", "--method", "gradient"]
    model = make(net.model(), folder, *options)
    onnx.checker.check_model(model, full_check=True)
    training, x = Training(model), net.feeds["x"]
    target = np.random.default_rng(3).normal(size=result_shape(**pool))
    got = training.gradients({"x": x, training.map["labels"][0]: target})["scale"]
    assert relative_error(got, expected_gradient(x, net.parameters["scale"], target, **pool)) < 1e-13
    return model.graph.node


def pooling(nodes):
    """The operators from the first parameter on that make the prediction, and the only MaxPool."""
    [pool] = [node for node in nodes if node.op_type == "MaxPool"]
    return [node.op_type for node in nodes if node.op_type in ("Mul", "Relu", "MaxPool")][:3], pool


def test_dilated_windows_behind_a_relu(tmp_path):
    """They may see nothing but padding, which is below all numbers, and above none of what a Relu makes of it."""
    pool = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [7, 6]}
    net = network(**IN_PLACE)
    net.nodes[-1].CopyFrom(helper.make_node("MaxPool", ["r"], ["y"], **pool))
    net.outputs.clear()
    net.output("y", ["N", 2, 1, 1])
    model = make(net.model(), tmp_path, "--loss", "mse", "--method", "gradient")
    order, node = pooling(model.graph.node)
    assert order == ["Mul", "Relu", "MaxPool"] and len(node.output) == 2


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_before_a_relu(pool, tmp_path):
    order, node = pooling(check(network(**pool), tmp_path, pool))
    assert order == ["Mul", "MaxPool", "Relu"] and len(node.output) == 2
    assert not any(attribute.name == "storage_order" for attribute in node.attribute)


def test_with_as_many_windows_as_elements(tmp_path):
    """Nothing is saved by pooling first."""
    order, node = pooling(check(network(**IN_PLACE), tmp_path, IN_PLACE))
    assert order == ["Mul", "Relu", "MaxPool"] and len(node.output) == 2


def test_places_without_a_name(tmp_path):
    net = network(**POOLS["apart"])
    net.nodes[-1].output.append("")
    order, node = pooling(check(net, tmp_path, POOLS["apart"]))
    assert order == ["Mul", "MaxPool", "Relu"] and all(node.output)


def test_behind_a_relu_that_is_read(tmp_path):
    net = network(**POOLS["apart"])
    net.output("r", ["N", *SHAPE[1:]])
    order, node = pooling(check(net, tmp_path, POOLS["apart"]))
    assert order == ["Mul", "Relu", "MaxPool"] and len(node.output) == 2


def test_places_that_are_read(tmp_path):
    """They are those behind the Relu."""
    net = network(**POOLS["apart"])
    net.nodes[-1].output.append("places")
    net.output("places", ["N", *result_shape(**POOLS["apart"])[1:]])
    net.outputs[-1].type.tensor_type.elem_type = TensorProto.INT64
    order, node = pooling(check(net, tmp_path, POOLS["apart"]))
    assert order == ["Mul", "Relu", "MaxPool"] and list(node.output) == ["y", "places"]


def test_what_no_gradient_goes_through(tmp_path):
    """It stays as it is: runtimes are slower where they have to tell the places."""
    net = network(**POOLS["apart"])
    net.nodes[-1].output[0] = "p"
    parameter(net, "offset", np.zeros((2, 1, 1)))
    net.op("Add", "p", "offset", into="y")
    model = make(net.model(), tmp_path, "--loss", "mse", "--freeze", "scale", "--method", "gradient")
    order, node = pooling(model.graph.node)
    assert order == ["Mul", "Relu", "MaxPool"] and len(node.output) == 1
