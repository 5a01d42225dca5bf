"""isaac-train --device cuda, with a training graph of products alone: the runtime's other kernels don't run on stand-ins.

ISAAC_TRAIN is the path of the program.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

STEPS, RATE = 3, 0.125


@pytest.fixture
def model(tmp_path):
    """The loss is the mean of x wT, so that each step adds -RATE times the mean of x to w."""
    shapes = {"x": ["b", 4], "weights": ["b", 1], "w": [1, 4]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = {"loss": [1, 1], "new_w": [1, 4], "dw": [1, 4]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["prediction"], transB=1),
        helper.make_node("Gemm", ["weights", "prediction"], ["loss"], transA=1),
        helper.make_node("IsaacGemm", ["weights", "x"], ["dw"], domain="ai.isaac", lambda_a=np.inf),
        helper.make_node("Gemm", ["one", "dw", "w"], ["new_w"], alpha=-RATE),
    ]
    constants = {"w": np.array([[1, 2, 3, 4]], np.float32), "one": np.ones((1, 1), np.float32)}
    graph = helper.make_graph(
        nodes, "step", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.isaac", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    training = {
        "version": 1,
        "data": ["x"],
        "labels": ["weights"],
        "loss": "loss",
        "scalars": {},
        "parameters": [{"name": "w", "input": "w", "gradient": "dw", "updated": "new_w"}],
        "state": [],
    }
    helper.set_model_props(made, {"isaac.training": json.dumps(training)})
    path = tmp_path / "step.onnx"
    onnx.save(made, path)
    return path


@pytest.fixture
def data(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, weights=np.full((6, 1), 1 / 6, np.float32))
    return tmp_path / "data.npz"


def call(*arguments, without=()):
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    environment = {**os.environ, "ORT_DYLIB_PATH": str(library)}
    environment = {name: value for name, value in environment.items() if name not in without}
    command = [os.environ["ISAAC_TRAIN"], *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_weights_stay_on_the_device_and_come_back(model, data, tmp_path):
    out, checkpoint = tmp_path / "out.onnx", tmp_path / "run.ckpt"
    arguments = [model, "--data", data, "--lr", 1, "--batch-size", 6, "--device", "cuda", "--checkpoint", checkpoint]
    done = call(*arguments, "--epochs", STEPS)
    assert done.returncode == 0 and "on CUDA" in done.stderr, done.stderr
    done = call(*arguments, "--epochs", 2 * STEPS, "--resume", "--out", out)
    assert done.returncode == 0, done.stderr
    trained = {value.name: numpy_helper.to_array(value) for value in onnx.load(out).graph.initializer}
    expected = np.array([[1, 2, 3, 4]]) - 2 * STEPS * RATE * np.load(data)["x"].astype(float).mean(0)
    assert np.allclose(trained["w"], expected, atol=1e-5)


def test_a_machine_without_the_libraries(model, data):
    done = call(model, "--data", data, "--lr", 1, "--device", "cuda", without=["LD_LIBRARY_PATH"])
    assert done.returncode == 1 and "panicked" not in done.stderr
    assert "cannot use CUDA" in done.stderr and "libcublas" in done.stderr and "onnxruntime-gpu" in done.stderr
