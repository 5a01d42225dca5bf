"""Real exports: loss and gradients that PyTorch recorded, in each fixture's io.npz."""

import numpy as np
import onnx
import pytest
from conftest import ROOT
from graphs import Training, make, relative_error

FIXTURES = ROOT / "tests" / "fixtures"
NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/forward.onnx"))
LOSSES = dict.fromkeys(["mlp3d_ts15_dynshape", "weight_left_3d_ts17", "tied_ae_ts17"], "mse")


# A step at this rate changes most parameters by more than they measure.
RATE = 10.0


class Recorded:
    """A fixture: its training graph, what it is fed, and the loss and gradients that PyTorch gives."""

    def __init__(self, name, folder, optimizer):
        recorded = np.load(FIXTURES / name / "io.npz")
        self.gradients = {key.removeprefix("grad/"): recorded[key] for key in recorded if key.startswith("grad/")}
        parameters = [argument for parameter in self.gradients for argument in ("--param", parameter)]
        loss = LOSSES.get(name, "cross-entropy")
        arguments = ["--loss", loss, "--optimizer", optimizer, "--method", "gradient", *parameters]
        self.forward = onnx.load(FIXTURES / name / "forward.onnx")
        self.training = Training(make(self.forward, folder, *arguments))
        self.feeds = {key.removeprefix("in/"): recorded[key] for key in recorded if key.startswith("in/")}
        self.feeds[self.training.map["labels"][0]] = recorded["target"]
        self.loss = recorded["loss"]


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_pytorch(name, tmp_path):
    recorded = Recorded(name, tmp_path, "none")
    training = recorded.training
    assert training.run(recorded.feeds)["loss"] == pytest.approx(recorded.loss, rel=2e-7)
    gradients = training.gradients(recorded.feeds)
    assert gradients.keys() == recorded.gradients.keys()
    for parameter, gradient in gradients.items():
        assert relative_error(gradient, recorded.gradients[parameter]) < 1e-6, parameter


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_sgd(name, tmp_path):
    """Part of which products do themselves."""
    recorded = Recorded(name, tmp_path, "sgd")
    recorded.training.step({**recorded.feeds, "lr": np.float32(RATE)})
    start = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in recorded.forward.graph.initializer}
    assert recorded.training.carried.keys() == recorded.gradients.keys()
    for parameter, value in recorded.training.carried.items():
        expected = start[parameter].astype(np.float64) - RATE * recorded.gradients[parameter]
        assert relative_error(value, expected) < 1e-6, parameter
