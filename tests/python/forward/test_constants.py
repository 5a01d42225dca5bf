"""Weights in Constant nodes are not trained, and that is told; other constants are none."""

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import make
from networks import network, random_layers
from net import Net
from onnx import helper, numpy_helper
from tool import call, training_map

REMEDY = "onnxoptimizer's pass extract_constant_to_initializer makes initializers of them"


def with_constants(model, *names):
    """The model with these initializers in Constant nodes."""
    graph = model.graph
    moved = [tensor for tensor in graph.initializer if tensor.name in names]
    for tensor in reversed(moved):
        graph.initializer.remove(tensor)
        graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    return model


def dense(*names):
    return with_constants(network(random_layers([6, 8, 7, 4])).model(), *names)


def said(model, folder, *arguments):
    """The finished call."""
    onnx.save(model, folder / "forward.onnx")
    return call(folder / "forward.onnx", "-o", folder / "train.onnx", "--loss", "mse", *arguments)


def test_a_warning_names_them_and_what_helps(tmp_path):
    done = said(dense("fc1.weight", "fc1.bias"), tmp_path)
    assert done.returncode == 0
    assert done.stderr == (
        "isaac-rewrite: warning: weights in Constant nodes are not trained, those in initializers are: "
        f"'fc1.weight' of Gemm 'Gemm:fc1.z', 'fc1.bias' of Gemm 'Gemm:fc1.z'; {REMEDY}\n"
    )
    trained = {entry["name"] for entry in training_map(onnx.load(tmp_path / "train.onnx"))["parameters"]}
    assert trained == {"fc0.weight", "fc0.bias", "fc2.weight", "fc2.bias"}


def test_the_list_names_all_of_them(tmp_path):
    names = [f"fc{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
    done = said(dense(*names), tmp_path, "--list")
    of = {"fc1": "Gemm 'Gemm:fc1.z'", "fc2": "Gemm 'Gemm:z'"}
    named = ", ".join(f"'{name}' of {of[name[:3]]}" for name in names)
    assert done.returncode == 0 and not done.stderr
    assert f"\nnot trained, because Constant nodes hold them: {named}\n" in done.stdout
    # With --json, standard output is one object.
    done = said(dense(*names), tmp_path, "--list", "--json")
    assert f"'fc2.weight' of Gemm 'Gemm:z' and 1 more; {REMEDY}\n" in done.stderr


def test_where_nothing_else_could_be_trained(tmp_path):
    model = dense(*(tensor.name for tensor in dense().graph.initializer))
    done = said(model, tmp_path)
    assert done.returncode == 1 and not (tmp_path / "train.onnx").exists()
    assert "depends on no floating-point initializer that is trained; weights in Constant nodes are not" in done.stderr
    assert f"'fc0.weight' of Gemm 'Gemm:fc0.z'" in done.stderr and f"and 3 more; {REMEDY}\n" in done.stderr


def test_who_says_what_is_trained_is_told_nothing(tmp_path):
    done = said(dense("fc1.weight"), tmp_path, "--param", "fc0.*")
    assert done.returncode == 0 and not done.stderr


# By name: a value that `w`, of the shape [6, 6], gives to the operator that reads it as a weight, which is named.
WAYS = {
    "a cast of 16 bits": lambda net: net.op("Cast", net.op("Cast", "w", into="half", to=10), into="full", to=1),
    "a transpose": lambda net: net.op("Transpose", "w", into="t"),
    "a copy": lambda net: net.op("Identity", net.op("Identity", "w", into="i"), into="ii"),
    "another shape": lambda net: net.op("Reshape", "w", net.constant("shape", [6, 6]), into="same"),
}
READERS = {
    "product": lambda net, w: net.op("MatMul", "x", w, into="z"),
    "product from the left": lambda net, w: net.op("MatMul", w, "x", into="z"),
    "convolution": lambda net, w: net.op(
        "Conv", net.op("Unsqueeze", "x", net.constant("axis", [2]), into="wide"),
        net.op("Unsqueeze", w, "axis", into="kernel"), into="z"
    ),
    "embedding": lambda net, w: net.op("Gather", w, net.constant("rows", [0, 2]), into="z"),
    "slopes": lambda net, w: net.op("PRelu", "x", w, into="z"),
}  # fmt: skip


def square(way, reader):
    net = Net(opset=17)
    net.data("x", [6, 6])
    net.weight("w", 6, 6)
    net.weight("other", 6)
    READERS[reader](net, WAYS[way](net))
    net.op("Mul", net.op("ReduceSum", "z", into="sum", keepdims=0), "other", into="y")
    net.output("y", [6])
    return net


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("way", WAYS)
def test_weights_behind_layouts(way, reader, tmp_path):
    net = square(way, reader)
    # What is told of a Constant is trained as an initializer.
    assert {entry["name"] for entry in training_map(make(net.model(), tmp_path, "--loss", "mse"))["parameters"]} == {"w", "other"}
    done = said(with_constants(net.model(), "w"), tmp_path)
    [node] = [node for node in net.nodes if "z" in node.output]
    assert done.returncode == 0 and f"are: 'w' of {node.op_type} '{node.name}'; " in done.stderr, done.stderr


def test_norms_and_biases(tmp_path):
    net = Net(opset=17)
    net.data("x", [5, 6])
    for name, shape in {"w": (6, 4), "bias": (4,), "scale": (4,), "shift": (4,)}.items():
        net.weight(name, *shape)
    net.op("Add", "bias", net.op("MatMul", "x", "w", into="y"), into="h")
    net.op("LayerNormalization", "h", "scale", "shift", into="z")
    net.output("z", [5, 4])
    done = said(with_constants(net.model(), "bias", "scale", "shift"), tmp_path, "--list")
    norm = "LayerNormalization 'LayerNormalization:z'"
    assert f"hold them: 'bias' of Add 'Add:h', 'scale' of {norm}, 'shift' of {norm}\n" in done.stdout


def test_constants_of_arithmetic_are_no_weights(tmp_path):
    net = Net(opset=17)
    net.data("x", [5, 6])
    net.weight("w", 6, 4)
    constants = {"epsilon": 1e-5, "root": 2**0.5, "mask": np.ones((5, 4)), "offset": np.ones(4), "scales": np.ones(1), "rows": [2.0] * 6}
    for name, value in constants.items():
        net.constant(name, np.array(value, np.float32))
    net.op("MatMul", net.op("Mul", "x", "rows", into="scaled"), "w", into="y")
    net.op("Div", net.op("Add", net.op("Abs", "y", into="size"), "epsilon", into="positive"), "root", into="a")
    net.op("Where", net.op("Greater", "mask", "y", into="is_less"), "a", net.op("Add", "a", "mask", into="b"), into="c")
    net.op("Add", net.op("Mul", "c", "scales", into="d"), "offset", into="z")
    net.output("z", [5, 4])
    done = said(with_constants(net.model(), *constants), tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_what_onnx_runtime_writes_has_them_in_initializers(tmp_path):
    """As the README says."""
    model = dense(*(tensor.name for tensor in dense().graph.initializer))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "lifted.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    done = call(tmp_path / "lifted.onnx", "-o", tmp_path / "train.onnx", "--loss", "mse", "--expect", 3)
    assert done.returncode == 0 and not done.stderr, done.stderr
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in dense().graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "train.onnx").graph.initializer}
    assert all(np.array_equal(after[name], array) for name, array in before.items())
