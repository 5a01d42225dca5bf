"""Exports with dynamic axes: loss and gradients that PyTorch computed in double, at other sizes than it exported with (onnx/exports.py)."""

import numpy as np
import onnx
import pytest
from conftest import ROOT
from graphs import Training, make

EXPORTS = ROOT / "tests" / "exports"
NAMES = sorted(path.stem for path in EXPORTS.glob("*.onnx"))


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_pytorch(name, tmp_path):
    model, recorded = onnx.load(EXPORTS / f"{name}.onnx"), np.load(EXPORTS / f"{name}.npz")
    expected = {key.removeprefix("gradient/"): recorded[key] for key in recorded if key.startswith("gradient/")}
    arguments = ["--loss", "cross-entropy", "--optimizer", "none", "--method", "gradient"]
    training = Training(make(model, tmp_path, *arguments))
    feeds = {data: recorded[f"input/{i}"] for i, data in enumerate(training.map["data"])}
    feeds[training.map["labels"][0]] = recorded["labels"]
    assert training.run(feeds)["loss"] == pytest.approx(recorded["loss"], rel=1e-6)
    gradients = training.gradients(feeds)
    if name.endswith("dynamo"):
        # That exporter folds the transposes of weights into constants.
        assert gradients and gradients.keys() <= expected.keys()
    else:
        assert gradients.keys() == expected.keys()
    # A gradient that is zero, as that of a bias before a norm, is rounding noise of the others' size.
    noise = 1e-3 * max(np.abs(gradient).max() for gradient in expected.values())
    for parameter, gradient in gradients.items():
        assert gradient.shape == expected[parameter].shape
        error = np.abs(gradient - expected[parameter]).max()
        assert error < 1e-5 * max(np.abs(expected[parameter]).max(), noise), parameter


@pytest.mark.parametrize("name", NAMES)
def test_steps_with_conditioned_gradients_lower_the_loss(name, tmp_path):
    model, recorded = onnx.load(EXPORTS / f"{name}.onnx"), np.load(EXPORTS / f"{name}.npz")
    training = Training(make(model, tmp_path, "--loss", "cross-entropy", "--optimizer", "sgd", "--lambda", "1"))
    feeds = {data: recorded[f"input/{i}"] for i, data in enumerate(training.map["data"])}
    feeds |= {training.map["labels"][0]: recorded["labels"], training.map["scalars"]["lr"]: np.array(0.05, np.float32)}
    losses = [training.step(feeds) for _ in range(5)]
    assert losses[0] == pytest.approx(recorded["loss"], rel=1e-6)
    assert (np.diff(losses) < 0).all(), losses


def test_there_are_exports():
    assert len(NAMES) >= 13
