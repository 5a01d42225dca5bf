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


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def library():
    return Path(os.environ["ISAAC_LIBRARY"])


@pytest.fixture(scope="session")
def data():
    folder = Path(os.environ["ISAAC_DOWNLOADS"]) / "mnist"
    mnist.fetch(folder)
    return mnist.load(folder)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    """The folder with the artifacts of the demo's network."""
    folder = tmp_path_factory.mktemp("artifacts")
    run(sys.executable, ROOT / "onnx" / "mlp_artifacts.py", folder)
    return folder


@pytest.fixture
def rewrite(tmp_path):
    """Rewrites a training graph with isaac-rewrite's options, and returns the new file."""

    def to_new_file(model, *options):
        out = tmp_path / "rewritten.onnx"
        run(os.environ["ISAAC_REWRITE"], model, "-o", out, *options)
        return out

    return to_new_file
