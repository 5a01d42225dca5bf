"""The README's examples, run as a reader would run them, against the newest stock ONNX Runtime."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import mlp
import onnxruntime_headers

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "examples"))

import train  # noqa: E402

LIBRARY = os.environ["ISAAC_LIBRARY"]


def run(*command, cwd=ROOT):
    """Runs a program, and returns what it printed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(printed):
    """The first and the last loss that an example printed."""
    first, last = printed.splitlines()
    return float(first.removeprefix("first loss ")), float(last.removeprefix("last loss "))


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """The rewritten training step of the examples' first line."""
    out = tmp_path_factory.mktemp("step") / "step.onnx"
    run(os.environ["ISAAC_REWRITE"], "onnx/spiral_step.onnx", "-o", out, "--lambda", "1", "--expect", "3")
    return out


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """The ONNX Runtime library of this Python package, in a folder with the names that a release gives it."""
    (library,) = Path(onnxruntime.__file__).with_name("capi").glob("libonnxruntime.so.*")
    folder = tmp_path_factory.mktemp("lib")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    return folder


def test_python(step):
    first, last = losses(run(sys.executable, "examples/train.py", step, LIBRARY))
    assert first == pytest.approx(0.6535, abs=1e-3)
    assert last < 0.1


def normalized(model):
    """With batch normalization in front of the data, whose statistics are far from what the model has stored."""
    for name, value in [("scale", 1.0), ("shift", 0.0), ("mean", 30.0), ("variance", 100.0)]:
        model.graph.initializer.append(numpy_helper.from_array(np.full(2, value, np.float32), name))
    node = helper.make_node("BatchNormalization", ["input", "scale", "shift", "mean", "variance"], ["normalized"])
    model.graph.node[0].input[0] = "normalized"
    model.graph.node.insert(0, node)
    return model


@pytest.mark.parametrize(
    "prepare, options", [(lambda model: model, []), (normalized, ["--optimizer", "momentum", "--momentum", "0.1"])], ids=["dense", "normalized"]
)
def test_fine_tuning(prepare, options, tmp_path):
    forward, step, trained, tuned = (tmp_path / name for name in ("forward.onnx", "step.onnx", "trained.npz", "tuned.onnx"))
    onnx.save(prepare(mlp.forward_model([2, 48, 48, 2], seed=0)), forward)
    rewrite = os.environ["ISAAC_REWRITE"]
    run(rewrite, forward, "-o", step, "--loss", "cross-entropy", "--lambda", "1", "--expect", "3", *options)
    first, last = losses(run(sys.executable, "examples/fine_tune.py", step, LIBRARY, trained))
    assert first > 0.6
    assert last < 0.1
    run(rewrite, forward, "--weights", trained, "-o", tuned)
    x, labels = train.spirals()
    (logits,) = onnxruntime.InferenceSession(tuned, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    assert (logits.argmax(1) == labels).mean() > 0.97


def test_cpp(step, runtime, tmp_path):
    headers = Path(os.environ["ISAAC_DOWNLOADS"]) / "onnxruntime-headers"
    onnxruntime_headers.fetch(headers)
    program = tmp_path / "train"
    run(
        *["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", headers, "examples/train.cpp"],
        *[f"-L{runtime}", f"-Wl,-rpath,{runtime}", "-lonnxruntime", "-o", program],
    )
    first, last = losses(run(program, step, LIBRARY))
    assert first == pytest.approx(0.6535, abs=1e-3)
    assert last < 0.1


def test_rust(step, runtime):
    program = Path(os.environ["ISAAC_EXAMPLES"]) / "train"
    first, last = losses(run(program, runtime / "libonnxruntime.so", step, LIBRARY))
    assert first == pytest.approx(0.6535, abs=1e-3)
    assert last < 0.1


def test_training_api(tmp_path):
    python = os.environ["ISAAC_TRAINING_PYTHON"]
    run(python, "onnx/mlp_artifacts.py", tmp_path, "--widths", "2", "48", "48", "2")
    model = tmp_path / "training_model.onnx"
    run(os.environ["ISAAC_REWRITE"], model, "-o", tmp_path / "isaac.onnx", "--lambda", "1", "--expect", "3")
    first, last = losses(run(python, "examples/train_api.py", tmp_path, LIBRARY))
    assert first > 0.6
    assert last < 0.1
