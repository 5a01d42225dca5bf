"""The same steps in every runtime: isaac-train in the one at hand, and the training graph in two releases of ONNX Runtime.

ISAAC_OTHER_PYTHON is an interpreter with another ONNX Runtime than that of these tests.
"""

import os
import subprocess

import mlp
import numpy as np
import onnx
import pytest
import steps
from conftest import ROOT
from graphs import relative_error
from runs import train, weights
from tool import call

EXPORTS = ROOT / "tests" / "exports"
RNG = np.random.default_rng(8)
STEPS, RATE = 3, 0.05


def dense():
    """Three linear layers."""
    return mlp.forward_model([6, 12, 9, 3], seed=3), RNG.normal(size=(10, 6)).astype(np.float32), RNG.integers(0, 3, 10)


def exported(name):
    """An export of PyTorch with the batch that it was recorded with."""
    recorded = np.load(EXPORTS / f"{name}.npz")
    return onnx.load(EXPORTS / f"{name}.onnx"), recorded["input/0"], recorded["labels"]


MODELS = {
    "dense": dense,
    "convolutions with batch normalization": lambda: exported("blocks_ts13"),
    "transformer encoder": lambda: exported("encoder_ts17"),
}


@pytest.mark.parametrize("method", ["gradient", "zeta-star"])
@pytest.mark.parametrize("name", MODELS)
def test_steps_are_the_same_in_every_runtime(name, method, tmp_path):
    model, x, labels = MODELS[name]()
    forward, graph, tuned = (tmp_path / f"{kind}.onnx" for kind in ("forward", "train", "tuned"))
    onnx.save(model, forward)
    data = model.graph.input[0].name
    np.savez(tmp_path / "data.npz", **{data: x, "labels": labels})
    options = ["--loss", "cross-entropy", "--optimizer", "momentum", "--method", method]
    whole = ["--batch-size", len(x), "--epochs", STEPS, "--lr", RATE, "--out", tuned]
    train(forward, "--data", tmp_path / "data.npz", *options, *whole)
    got = weights(tuned)

    assert call(forward, "-o", graph, *options).returncode == 0
    np.savez(tmp_path / "feeds.npz", **{data: x, "labels": labels, "lr": np.float32(RATE)})
    mine = steps.run(graph, tmp_path / "feeds.npz", STEPS)
    other = [os.environ["ISAAC_OTHER_PYTHON"], steps.__file__, graph, tmp_path / "feeds.npz", str(STEPS), tmp_path / "other.npz"]
    done = subprocess.run(other, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    other = np.load(tmp_path / "other.npz")
    assert str(other["version"]) != mine["version"]

    start, compared = weights(forward), 0
    for parameter in mine.keys() & got.keys():
        for result in (got[parameter], other[parameter]):
            assert relative_error(result, mine[parameter]) < 1e-5, parameter
        compared += not np.array_equal(got[parameter], start[parameter])
    assert compared >= 6
