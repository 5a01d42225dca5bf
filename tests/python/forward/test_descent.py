"""The update of plain SGD as a part of the product that makes the gradient, against NumPy in double and against the update that stands alone."""

import json

import numpy as np
import onnx
import pytest
import test_branches
from graphs import Training, make, relative_error
from net import Net
from networks import network, random_layers
from onnx import TensorProto
from tool import call

FLOAT, DOUBLE, HALF = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16
TOLERANCE = {FLOAT: 1e-6, DOUBLE: 1e-13}
SIZES = {"l": 1, "m": 8, "n": 6, "t": 4, "e": 3, "i": 7, "o": 5}
RATE = 0.3
# An update that has nothing to do with its product.
ALONE = ["Sub", "Mul"]
# What makes the change is no product of matrices.
APART = ["Sub"]
# The input that a product is added to.
ADDENDS = {"Gemm": 2, "IsaacGemm": 5}
# By name: the operator, the axes of x and w and of the result, the operator's attributes, what is expected between w and its next value.
LAYOUTS = {
    "gemm": ("Gemm", "ni,io->no", {}, ["Gemm"]),
    "gemm, w transposed": ("Gemm", "ni,oi->no", {"transB": 1}, ["Gemm"]),
    "gemm, x transposed": ("Gemm", "in,io->no", {"transA": 1}, ["Gemm"]),
    "gemm, both transposed": ("Gemm", "in,oi->no", {"transA": 1, "transB": 1}, ["Gemm"]),
    "gemm, alpha": ("Gemm", "ni,oi->no", {"transB": 1, "alpha": 0.25}, ["Gemm"]),
    "gemm, w first": ("Gemm", "in,oi->on", {}, ["Gemm"]),
    "matmul": ("MatMul", "ni,io->no", {}, ["Gemm"]),
    "matmul, w first": ("MatMul", "in,oi->on", {}, ["Gemm"]),
    "more rows than features": ("MatMul", "mi,io->mo", {}, ["Gemm"]),
    "tokens": ("MatMul", "nti,io->nto", {}, ["Gemm"]),
    "few tokens": ("MatMul", "lti,io->lto", {}, ["Gemm"]),
    "experts": ("MatMul", "eni,eio->eno", {}, [*APART, "MatMul"]),
    "tokens, w first": ("MatMul", "nit,oi->not", {}, [*APART, "ReduceSum"]),
}


def way(model, name):
    """The operators on the way back from the next value of a parameter to what its gradient comes out of."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found = [makers[f"{name}.updated"]]
    while found[-1].op_type in ALONE:
        found.append(makers[found[-1].input[1]])
    if len(found) == 1 and found[0].op_type in ADDENDS:
        assert found[0].input[ADDENDS[found[0].op_type]] == name
    return [node.op_type for node in found]


@pytest.mark.parametrize("element", [FLOAT, DOUBLE], ids=["float", "double"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, element, tmp_path):
    op_type, axes, attributes, expected_way = LAYOUTS[layout]
    operands, result = axes.split("->")
    x_axes, w_axes = operands.split(",")
    net = Net(element=element)
    net.data("x", [SIZES[axis] for axis in x_axes])
    net.weight("w", *(SIZES[axis] for axis in w_axes))
    net.op(op_type, *(["w", "x"] if result in ("on", "not") else ["x", "w"]), into="y", **attributes)
    net.output("y", [SIZES[axis] for axis in result])
    model = make(net.model(), tmp_path, "--loss", "mse", "--method", "gradient")
    onnx.checker.check_model(model, full_check=True)
    assert way(model, "w") == expected_way

    target = net.normal(*(SIZES[axis] for axis in result))
    # The oldest runtime fuses MatMul in double to what it has no kernel for.
    training = Training(model, fuses=element == FLOAT)
    training.step({"x": net.feeds["x"], "lr": np.float32(RATE), training.map["labels"][0]: target})
    x, w, t = (value.astype(np.float64) for value in (net.feeds["x"], net.parameters["w"], target))
    alpha = attributes.get("alpha", 1)
    g = 2 * (alpha * np.einsum(axes, x, w) - t) / t.size
    gradient = alpha * np.einsum(f"{x_axes},{result}->{w_axes}", x, g)
    expected = w - np.float64(np.float32(RATE)) * gradient
    assert relative_error(training.carried["w"], expected) < TOLERANCE[element]
    assert relative_error(w, expected) > 1e-3


def dense():
    return network(random_layers((7, 9, 6, 5), seed=1))


def batch(random):
    return {"x": random.normal(size=(8, 7)).astype(np.float32), "labels": random.integers(0, 5, 8)}


def fused_and_alone(net, folder, *options):
    """The training graph for SGD, and one for momentum 0, whose velocity is the gradient and has to be there."""
    fused = make(net.model(), folder, *options, "--optimizer", "sgd")
    return fused, make(net.model(), folder, *options, "--optimizer", "momentum", "--momentum", 0)


def compare(fused, alone, net, batches):
    """A step for each batch, at falling rates: both graphs come to the same parameters, which are others than before."""
    runs = [Training(graph) for graph in (fused, alone)]
    for step, feeds in enumerate(batches):
        seed = {name: np.int64(step) for role, name in runs[0].map["scalars"].items() if role == "seed"}
        losses = [run.step({**feeds, **seed, "lr": np.float32(RATE / (1 + step))}) for run in runs]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, start in net.parameters.items():
        assert relative_error(runs[0].carried[name], runs[1].carried[name]) < 1e-6, name
        assert relative_error(start, runs[1].carried[name]) > 1e-3, name


@pytest.mark.parametrize("method, expected", [("gradient", ["Gemm"])] + [(m, ["IsaacGemm"]) for m in ("zeta-star", "zeta", "kfac")])
def test_dense_layers(method, expected, tmp_path):
    fused, alone = fused_and_alone(dense(), tmp_path, "--loss", "cross-entropy", "--method", method, "--lambda", 0.2)
    for name in ("fc0.weight", "fc1.weight", "fc2.weight"):
        assert way(fused, name) == expected
        assert way(alone, name)[:3] == [*ALONE, "Add"]
    random = np.random.default_rng(2)
    compare(fused, alone, dense(), [batch(random) for _ in range(5)])


@pytest.mark.parametrize(
    "options",
    ["--weight-decay 0.1", "--clip-norm 1", "--optimizer momentum", "--optimizer adam", "--optimizer adamw"],
)
def test_other_updates_stand_alone(options, tmp_path):
    model = make(dense().model(), tmp_path, "--loss", "cross-entropy", "--method", "gradient", *options.split())
    assert all(len(way(model, f"fc{i}.weight")) > 1 for i in range(3))


def test_half_stands_alone(tmp_path):
    """In 16 bits, lr · g may underflow where lr · dW does not."""
    net = Net(element=HALF)
    net.data("x", ["N", 7], (6, 7))
    net.weight("w", 7, 5)
    net.op("MatMul", "x", "w", into="y")
    net.output("y", ["N", 5])
    model = make(net.model(), tmp_path, "--loss", "mse", "--method", "gradient")
    assert way(model, "w") == ["Cast"]
    assert all(len(node.input) == 2 for node in model.graph.node if node.op_type == "Gemm")


def test_a_frozen_table_in_half(tmp_path):
    """No gradient goes through it: the layer behind it is one in float."""
    net = Net()
    net.data("x", ["N", 7], (6, 7))
    net.constant("table", np.ones(7, np.float16))
    net.weight("w", 7, 5)
    net.op("MatMul", net.op("Mul", "x", net.op("Cast", "table", into="wide", to=FLOAT), into="h"), "w", into="y")
    net.output("y", ["N", 5])
    model = make(net.model(), tmp_path, "--loss", "mse", "--method", "gradient", "--freeze", "table")
    assert way(model, "w") == ["Gemm"]


def test_a_branch_stands_alone(tmp_path):
    """What types its gradients have is not looked at."""
    model = make(test_branches.forward(), tmp_path, "--loss", "cross-entropy", "--method", "gradient")
    assert way(model, "head") == [*ALONE, "Gemm"]


@pytest.mark.parametrize("method, expected", [("gradient", ["Gemm"]), ("zeta-star", ["IsaacGemm"])])
def test_batches_of_any_size(method, expected, tmp_path):
    """Axes of data have names: what is alone beside the features is the batch, which is short; with tokens, nobody knows, and a Gemm is made alone."""
    net = Net()
    net.data("x", ["N", 7], (6, 7))
    net.weight("w", 7, 5)
    net.op("MatMul", "x", "w", into="y")
    net.output("y", ["N", 5])
    assert way(make(net.model(), tmp_path, "--loss", "mse", "--method", method), "w") == expected
    net.inputs.clear(), net.outputs.clear()
    net.data("x", ["N", 4, 7], (6, 4, 7)), net.output("y", ["N", 4, 5])
    expected = [*APART, *expected] if method == "gradient" else expected
    assert way(make(net.model(), tmp_path, "--loss", "mse", "--method", method), "w") == expected


@pytest.mark.parametrize("rows, method, expected, ulps", [
    (256, "gradient", ["Gemm"], 1.1),
    (4096, "gradient", [*APART, "Gemm"], 0.6),
    (4096, "zeta-star", ["IsaacGemm"], 0.6),
])
def test_small_changes_over_many_rows(rows, method, expected, ulps, tmp_path):
    """Each weight changes by a few of its last places, which a sum that is rounded part by part would lose."""
    net = Net()
    net.data("x", [rows, 12])
    net.weight("w", 12, 8)
    net.op("MatMul", "x", "w", into="y")
    net.output("y", [rows, 8])
    net.feeds["x"] = np.abs(net.feeds["x"])
    model = make(net.model(), tmp_path, "--loss", "mse", "--method", method, "--lambda", "inf")
    assert way(model, "w") == expected
    x, w = (value.astype(np.float64) for value in (net.feeds["x"], net.parameters["w"]))
    target = (x @ w - 1).astype(np.float32)
    gradient = x.T @ (2 * (x @ w - target) / target.size)
    place = np.spacing(np.abs(net.parameters["w"])).astype(np.float64)
    rate = np.float32(4 * np.median(place) / np.abs(gradient).max())
    training = Training(model)
    training.step({"x": net.feeds["x"], "lr": rate, training.map["labels"][0]: target})
    assert (np.abs(training.carried["w"] - (w - rate * gradient)) / place).max() < ulps


@pytest.mark.parametrize("method", ["gradient", "zeta-star"])
def test_two_uses_of_a_weight(method, tmp_path):
    """Its gradient is a sum, or a product of the rows of both with a sum of one term behind it."""
    net = Net()
    net.data("x", ["N", 7], (6, 7))
    net.weight("w", 7, 7)
    net.op("MatMul", "x", "w", into="h")
    net.op("MatMul", "h", "w", into="y")
    net.output("y", ["N", 7])
    model, alone = fused_and_alone(net, tmp_path, "--loss", "mse", "--method", method)
    assert way(model, "w") == [*APART, "Sum"]
    compare(model, alone, net, [{**net.feeds, "labels": net.feeds["x"]}])


@pytest.mark.parametrize("method", ["zeta-star", "zeta"])
def test_halves_of_a_weight(method, tmp_path):
    """As in bidirectional networks. The update reads the weight, which the gradients of both halves depend on: they are layers all the same."""
    net = Net()
    net.data("x", ["N", 7], (6, 7))
    net.weight("w", 14, 7)
    for start, source, into in [(0, "x", "h"), (7, "h", "y")]:
        bounds = [net.constant(f"{into}.{name}", [value]) for name, value in [("start", start), ("end", start + 7), ("axis", 0)]]
        net.op("Slice", "w", *bounds, into=f"{into}.w")
        net.op("MatMul", source, f"{into}.w", into=into)
    net.output("y", ["N", 7])
    model, alone = fused_and_alone(net, tmp_path, "--loss", "mse", "--method", method)
    for graph in (model, alone):
        assert sum(node.op_type == "IsaacGemm" for node in graph.graph.node) == 2
    compare(model, alone, net, [{**net.feeds, "labels": net.feeds["x"]}])


def test_a_fused_graph_is_a_training_graph(tmp_path):
    """The rewriter finds the same layers in it, and conditions them as it does in the forward model."""
    options = ["--loss", "cross-entropy", "--optimizer", "sgd", "--lambda", 0.2]
    model = dense().model()
    expected = make(model, tmp_path, *options, "--method", "zeta-star")
    make(model, tmp_path, *options, "--method", "gradient")
    done = call(tmp_path / "train.onnx", "-o", tmp_path / "conditioned.onnx", "--lambda", 0.2, "--expect", 3)
    assert done.returncode == 0, done.stderr
    compare(onnx.load(tmp_path / "conditioned.onnx"), expected, dense(), [batch(np.random.default_rng(2))])


def test_the_weight_that_a_product_is_subtracted_from(tmp_path):
    """Three layers of one size read x, and the names do not tell their products apart: each occurs in all of `updated`."""
    net = Net()
    net.data("x", ["N", 7], (6, 7))
    for name in "dpu":
        net.weight(name, 7, 7)
    for name in "upd":
        net.op("MatMul", "x", name, into=f"{name}.z")
        net.op("Relu", f"{name}.z", into=f"{name}.h")
    net.op("Sum", "d.h", "p.h", "u.h", into="y")
    net.output("y", ["N", 7])
    make(net.model(), tmp_path, "--loss", "mse", "--method", "gradient")
    report = json.loads(call(tmp_path / "train.onnx", "--list", "--json").stdout)
    assert [(layer["weight"], layer["product_outputs"]) for layer in report["layers"]] == [
        (name, [f"{name}.updated"]) for name in "upd"
    ]
