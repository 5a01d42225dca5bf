"""What the training tests share: MNIST, the artifacts of the demo's network, and the rewriter.

`cargo xtask test training` sets the environment variables that name the built files.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mnist

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def library():
    return Path(os.environ["ISAAC_LIBRARY"])


@pytest.fixture(scope="session")
def data():
    folder = Path(os.environ["ISAAC_DOWNLOADS"]) / "mnist"
    mnist.fetch(folder)
    return mnist.load(folder)


@pytest.fixture(scope="session")
def make_artifacts(tmp_path_factory):
    """Makes the artifacts of a network of the given widths, and returns their folder."""

    def make(*options):
        folder = tmp_path_factory.mktemp("artifacts")
        script = ROOT / "onnx" / "mlp_artifacts.py"
        subprocess.run([sys.executable, script, folder, *options], check=True, stderr=subprocess.PIPE)
        return folder

    return make


@pytest.fixture(scope="session")
def artifacts(make_artifacts):
    return make_artifacts()


@pytest.fixture
def rewrite(tmp_path):
    """Rewrites a training graph with isaac-rewrite's options, and returns the new file."""

    def run(model, *options):
        out = tmp_path / "rewritten.onnx"
        subprocess.run([os.environ["ISAAC_REWRITE"], model, "-o", out, *options], check=True)
        return out

    return run
