"""A model inside a training graph: beside it stands one product with a weight, which is what is trained.

The training graph computes the model's outputs as well, in the operators of the newer opset.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIDE = {"aside/x": np.zeros((1, 1), np.float32)}


def opset(model):
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)


def with_product(model):
    """The model with an output `aside/y`, the product of the input `aside/x` and the weight `aside/w`."""
    both = onnx.ModelProto()
    both.CopyFrom(model)
    graph = both.graph
    graph.node.append(helper.make_node("MatMul", ["aside/x", "aside/w"], ["aside/y"]))
    graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), "aside/w"))
    graph.input.append(helper.make_tensor_value_info("aside/x", TensorProto.FLOAT, (1, 1)))
    graph.output.append(helper.make_tensor_value_info("aside/y", TensorProto.FLOAT, (1, 1)))
    if both.ir_version < 4:
        graph.input.append(helper.make_tensor_value_info("aside/w", TensorProto.FLOAT, (1, 1)))
    return both


def statistics(model):
    """Running statistics, which are frozen so that batch normalization stays in inference mode."""
    known = {tensor.name for tensor in model.graph.initializer}
    return [name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5] if name in known]


def train(model, folder):
    """Runs isaac-rewrite; returns the training graph, or what it said."""
    before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
    onnx.save(with_product(model), before)
    command = [os.environ["ISAAC_REWRITE"], before, "-o", after, "--loss", "mse", "--prediction", "aside/y"]
    command += ["--param", "aside/w", "--method", "gradient", "--optimizer", "none"]
    for name in statistics(model):
        command += ["--freeze", name]
    done = subprocess.run(command, capture_output=True, text=True)
    return (onnx.load(after), None) if done.returncode == 0 else (None, done.stderr.strip())


def run(training, outputs, feeds):
    """The model's outputs as the training graph computes them."""
    session = onnxruntime.InferenceSession(training.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {info.name for info in training.graph.initializer} | set(feeds)
    labels = {info.name: np.zeros((1, 1), np.float32) for info in session.get_inputs() if info.name not in given}
    return session.run(outputs, {**feeds, **labels})
