"""Batch normalization in training: ten steps against PyTorch's, see onnx/pytorch_steps.py."""

import numpy as np
import pytest
import pytorch_steps
from conftest import ROOT
from networks import parameter
from graphs import Training, make, relative_error
from net import Net

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
