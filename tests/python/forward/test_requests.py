"""Requests that do not fit the model: a clear error, its exit status, and nothing written."""

import dense
import numpy as np
import onnx
import pytest
from net import Net
from onnx import TensorProto
from pytorch_steps import start
from tool import call


def two_outputs():
    net = Net(opset=17, element=TensorProto.FLOAT)
    net.data("x", ["N", 3], np.zeros((1, 3), np.float32))
    net.constant("w", np.ones((3, 2), np.float32))
    net.op("MatMul", "x", "w", into="z")
    net.op("ArgMax", "z", into="best", axis=1, keepdims=0)
    net.output("z", ["N", 2])
    net.output("best", ["N"], TensorProto.INT64)
    return net.model()


def no_gradient():
    """Two operators that cannot be differentiated."""
    net = Net(opset=17, element=TensorProto.FLOAT)
    net.data("x", [3, 3])
    for name in ("u", "v"):
        net.constant(name, np.eye(3, dtype=np.float32))
        net.op("Det", net.op("MatMul", "x", name, into=f"x{name}"), into=f"d{name}")
    net.op("Add", "du", "dv", into="z")
    net.output("z", [])
    return net.model()


CASES = [
    # model, arguments, status, what the message says
    ("dense", ["--loss", "mse", "--freeze", "fc7*"], 1, "no floating-point initializer is called 'fc7*'"),
    ("dense", ["--loss", "mse", "--param", "bias"], 1, "fc0.weight, fc0.bias, fc1.weight, fc1.bias"),
    ("dense", ["--loss", "mse", "--freeze", "*"], 1, "depends on no floating-point initializer that is trained"),
    ("dense", ["--loss", "mse", "--prediction", "y"], 1, "the model has no output 'y'; there are: z"),
    ("dense", ["--loss-output", "y"], 1, "the model has no output 'y'; there are: z"),
    ("dense", ["--loss-output", "z"], 1, "'z' is no scalar"),
    ("dense", ["--loss", "cross-entropy", "--class-axis", "2"], 1, "--class-axis 2 for 'z', which has 2 axes"),
    ("dense", ["--loss", "cross-entropy", "--class-axis", "0"], 1, "--class-axis 0 for 'z'"),
    ("dense", ["--loss", "mse", "--ignore-index", "1"], 2, "--ignore-index belongs to --loss cross-entropy"),
    ("dense", ["--loss", "mse", "--class-axis", "1"], 2, "--class-axis belongs to"),
    ("dense", ["--loss", "mse", "--betas", "0.9", "1.0"], 2, "from 0 to below 1"),
    ("dense", ["--loss", "mse", "--clip-norm", "0"], 2, "above 0"),
    ("dense", ["--loss", "mse", "--optimizer", "none", "--update-out", "u.onnx"], 2, "--update-out"),
    ("dense", ["--loss", "mse", "--lambda-g", "1"], 2, "--lambda-g belongs to --method zeta"),
    ("dense", ["--loss", "l1", "--method", "zeta"], 1, "sample labels from the model's distribution"),
    ("dense", [], 1, "--loss makes a training graph of it"),
    ("two", ["--loss", "cross-entropy"], 1, "which output is the prediction? There are: z, best"),
    ("two", ["--loss", "mse", "--prediction", "best"], 1, "does not hold floating-point numbers"),
    ("none", ["--loss", "mse"], 1, "2 operators cannot be differentiated"),
]


@pytest.mark.parametrize("model, arguments, status, message", CASES, ids=lambda value: str(value)[:40])
def test_request(model, arguments, status, message, tmp_path):
    models = {"dense": lambda: dense.forward(start()[0]), "two": two_outputs, "none": no_gradient}
    source, target = tmp_path / "forward.onnx", tmp_path / "train.onnx"
    onnx.save(models[model](), source)
    done = call(source, "-o", target, *arguments)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["forward.onnx"]


def test_a_training_graph_is_no_forward_model(tmp_path):
    source, train = tmp_path / "forward.onnx", tmp_path / "train.onnx"
    onnx.save(dense.forward(start()[0]), source)
    assert call(source, "-o", train, "--loss", "mse", "--method", "gradient").returncode == 0
    done = call(train, "-o", tmp_path / "again.onnx", "--loss", "mse")
    assert done.returncode == 2 and "has a backward pass" in done.stderr
    # Without --loss, its products are rewritten as those of any training graph.
    done = call(train, "-o", tmp_path / "again.onnx", "--expect", 2)
    assert done.returncode == 0, done.stderr


def test_frozen_parameters_are_not_trained(tmp_path):
    source, target = tmp_path / "forward.onnx", tmp_path / "train.onnx"
    onnx.save(dense.forward(start()[0]), source)
    done = call(source, "-o", target, "--loss", "mse", "--freeze", "fc0.*", "--expect", 1)
    assert done.returncode == 0, done.stderr
    outputs = {output.name for output in onnx.load(target).graph.output}
    assert outputs == {"z", "loss", "fc1.weight.updated", "fc1.bias.updated"}
    # Nothing is computed for the frozen layer: one product for the other weight, none to go further back.
    nodes = [node.op_type for node in onnx.load(target).graph.node]
    assert nodes.count("Gemm") == 2 and nodes.count("IsaacGemm") == 1 and "MatMul" not in nodes
