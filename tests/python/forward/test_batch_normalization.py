"""Batch normalization in training: ten steps against PyTorch's, see onnx/pytorch_steps.py."""

import numpy as np
import onnxruntime
import pytest
import pytorch_steps
from conftest import ROOT
from networks import parameter
from graphs import Training, make, relative_error
from net import Net
from onnx import helper, numpy_helper

RECORDED = np.load(ROOT / "onnx" / "pytorch_steps.npz")
# Double precision of PyTorch, ten steps in float here.
TOLERANCE = 1e-5


def group(prefix):
    return {key.removeprefix(prefix): RECORDED[key] for key in RECORDED if key.startswith(prefix)}


def train(training):
    """The loss of each step; what is carried on is in `training`."""
    _, *batches = pytorch_steps.start()
    steps = zip(*batches, pytorch_steps.FALLING_RATES)
    return [training.step({"x": x, "labels": labels, "lr": rate}) for x, labels, rate in steps]


def normalized():
    """A batch normalization in inference mode, as it is exported."""
    start = group("normalized/start/")
    net = Net(opset=17)
    inputs, _, classes = pytorch_steps.WIDTHS
    net.data("x", ["N", inputs], (7, inputs))
    for name in start:
        if "biased" not in name:
            parameter(net, name, start[name])
    net.op("Gemm", "x", "0.weight", "0.bias", into="0.z", transB=1)
    names = [f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    net.op("BatchNormalization", "0.z", *names, into="1.y", momentum=0.7)
    net.op("Gemm", net.op("Tanh", "1.y", into="1.h"), "3.weight", "3.bias", into="z", transB=1)
    net.output("z", ["N", classes])
    return net


@pytest.mark.parametrize("name", ["sgd_decay", "adam"])
def test_batch_normalization(name, tmp_path):
    """Trains with the statistics of the batch; the running ones follow as ONNX says, with the batch's biased variance."""
    options, _, _ = pytorch_steps.OPTIMIZERS[name]
    arguments = ["--loss", "cross-entropy", "--method", "gradient", *options.split()]
    training = Training(make(normalized().model(), tmp_path, *arguments))
    expected = group(f"normalized/{name}/")
    assert relative_error(train(training), expected.pop("losses")) < TOLERANCE
    unbiased = expected.pop("1.running_var")
    expected["1.running_var"] = expected.pop("1.biased_var")
    assert relative_error(unbiased, expected["1.running_var"]) > 0.05
    if name == "adam":
        # The normalization takes this bias away, so that its gradient is zero but for rounding, of which Adam makes steps.
        del expected["0.bias"], expected["1.running_mean"]
    for tensor, value in expected.items():
        assert relative_error(training.carried[tensor], value) < TOLERANCE, tensor
    trained = {entry["name"] for entry in training.map["parameters"]}
    assert trained == {name for name in group("normalized/start/") if "running" not in name and "biased" not in name}


def test_frozen_batch_normalization_stays_in_inference_mode(tmp_path):
    """Its statistics are what they were, and its gradients those of an affine map."""
    net = normalized()
    model = make(net.model(), tmp_path, "--loss", "mse", "--optimizer", "none", "--freeze", "*running_*")
    training = Training(model)
    assert training.map["state"] == []
    tensors = {name: value.astype(np.float64) for name, value in net.parameters.items()}
    x, t = net.feeds["x"], net.normal(7, pytorch_steps.WIDTHS[-1])
    slope = tensors["1.weight"] / np.sqrt(tensors["1.running_var"] + 1e-5)
    centred = x @ tensors["0.weight"].T + tensors["0.bias"] - tensors["1.running_mean"]
    h = np.tanh(centred * slope + tensors["1.bias"])
    dz = 2 * (h @ tensors["3.weight"].T + tensors["3.bias"] - t) / t.size
    dy = (dz @ tensors["3.weight"]) * (1 - h * h)
    gradients = training.gradients({"x": x, "labels": t})
    assert relative_error(gradients["1.bias"], dy.sum(0)) < 1e-6
    assert relative_error(gradients["0.bias"], dy.sum(0) * slope) < 1e-6
    assert gradients.keys() == {name for name in tensors if "running" not in name}


def test_one_frozen_statistic_keeps_both(tmp_path):
    training = Training(make(normalized().model(), tmp_path, "--loss", "mse", "--freeze", "1.running_mean"))
    assert training.map["state"] == []
    assert not [entry["name"] for entry in training.map["parameters"] if "running" in entry["name"]]


def test_statistics_are_told_from_what_the_optimizer_carries(tmp_path):
    training = Training(make(normalized().model(), tmp_path, "--loss", "mse", "--optimizer", "momentum"))
    statistics = {entry["name"] for entry in training.map["state"] if entry.get("statistic")}
    assert statistics == {"1.running_mean", "1.running_var"}
    assert len(training.map["state"]) == 2 + len(training.map["parameters"])


@pytest.mark.parametrize("flag", ["initializer", "node"])
def test_exports_in_training_mode_are_evaluated_in_inference_mode(flag, tmp_path):
    net = normalized()
    node = next(node for node in net.nodes if node.op_type == "BatchNormalization")
    node.attribute.append(helper.make_attribute("training_mode", 1))
    node.output.extend(["mean.new", "var.new"])
    ratio = net.constant("ratio", np.float32(0.5))
    if flag == "initializer":
        net.initializers.append(numpy_helper.from_array(np.array(True), "is_training"))
    else:
        net.op("Constant", into="is_training", value=numpy_helper.from_array(np.array(True)))
    net.op("Dropout", "z", ratio, "is_training", into="dropped")
    net.outputs.clear()
    net.output("dropped", ["N", pytorch_steps.WIDTHS[-1]])
    make(net.model(), tmp_path, "--loss", "mse", "--eval-out", tmp_path / "eval.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "eval.onnx", options, providers=["CPUExecutionProvider"])
    tensors = {name: value.astype(np.float64) for name, value in net.parameters.items()}
    x = net.feeds["x"]
    slope = tensors["1.weight"] / np.sqrt(tensors["1.running_var"] + 1e-5)
    centred = x @ tensors["0.weight"].T + tensors["0.bias"] - tensors["1.running_mean"]
    z = np.tanh(centred * slope + tensors["1.bias"]) @ tensors["3.weight"].T + tensors["3.bias"]
    (got,) = session.run(["dropped"], {"x": x, "labels": np.zeros(z.shape, np.float32)})
    assert relative_error(got, z) < 1e-6
