"""Real exports: loss and gradients that PyTorch recorded, in each fixture's io.npz."""

import numpy as np
import onnx
import pytest
from conftest import ROOT
from graphs import Training, make, relative_error

FIXTURES = ROOT / "tests" / "fixtures"
NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/forward.onnx"))
LOSSES = dict.fromkeys(["mlp3d_ts15_dynshape", "weight_left_3d_ts17", "tied_ae_ts17"], "mse")


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_pytorch(name, tmp_path):
    recorded = np.load(FIXTURES / name / "io.npz")
    expected = {key.removeprefix("grad/"): recorded[key] for key in recorded if key.startswith("grad/")}
    parameters = [argument for parameter in expected for argument in ("--param", parameter)]
    loss = LOSSES.get(name, "cross-entropy")
    arguments = ["--loss", loss, "--optimizer", "none", "--method", "gradient", *parameters]
    training = Training(make(onnx.load(FIXTURES / name / "forward.onnx"), tmp_path, *arguments))
    feeds = {key.removeprefix("in/"): recorded[key] for key in recorded if key.startswith("in/")}
    feeds[training.map["labels"][0]] = recorded["target"]
    assert training.run(feeds)["loss"] == pytest.approx(recorded["loss"], rel=2e-7)
    gradients = training.gradients(feeds)
    assert gradients.keys() == expected.keys()
    for parameter, gradient in gradients.items():
        assert relative_error(gradient, expected[parameter]) < 5e-7, parameter
