"""Training runs that lower the loss, and that another ONNX Runtime repeats."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import steps
from conftest import ROOT
from networks import network, random_layers
from graphs import make, relative_error

sys.path.append(str(ROOT / "examples"))
import train  # noqa: E402

METHODS = {
    "gradient": [],
    "zeta-star": ["--lambda", "1"],
    "zeta": ["--lambda", "1", "--lambda-g", "0.3"],
    "kfac": ["--lambda", "1"],
}
RATES = {"sgd": 2.0, "momentum": 0.5, "adam": 0.01, "adamw": 0.01}


@pytest.fixture(scope="module")
def forward():
    """A network that tells spirals apart."""
    return network(random_layers([2, 40, 40, 2])).model()


@pytest.mark.parametrize(
    "method, optimizer", [*((method, "sgd") for method in METHODS), *(("zeta-star", rule) for rule in RATES if rule != "sgd")]
)
def test_spirals(method, optimizer, forward, tmp_path):
    """The loss becomes a fraction of what it was, and both runtimes see the same losses and parameters on the way."""
    make(forward, tmp_path, "--loss", "cross-entropy", "--optimizer", optimizer, "--method", method, *METHODS[method])
    x, labels = train.spirals(60)
    np.savez(tmp_path / "feeds.npz", x=x, labels=labels, lr=np.float32(RATES[optimizer]))
    mine = steps.run(tmp_path / "train.onnx", tmp_path / "feeds.npz", 150)
    assert mine["losses"][-1] < 0.5 * mine["losses"][0]
    few = steps.run(tmp_path / "train.onnx", tmp_path / "feeds.npz", 5)
    command = [os.environ["ISAAC_OTHER_PYTHON"], steps.__file__, tmp_path / "train.onnx", tmp_path / "feeds.npz", "5"]
    done = subprocess.run([*command, tmp_path / "other.npz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    other = np.load(tmp_path / "other.npz")
    assert str(other["version"]) != str(few["version"])
    assert set(other) == set(few)
    for name in set(few) - {"version"}:
        assert relative_error(few[name], other[name]) < 1e-5, name
