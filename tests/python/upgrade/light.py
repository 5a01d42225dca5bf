"""Gradients of the whole networks that the onnx package brings (opset 9), against PyTorch in double precision.

    ISAAC_REWRITE=target/release/isaac-rewrite ISAAC_ONNX_DATA=... ISAAC_TORCH_PYTHON=... python tests/python/upgrade/light.py > docs/networks.md

Needs onnxruntime, and an interpreter with torch for light_reference.py. The files hold shapes in the place of weights, which get random numbers
there; dropout is off, and running statistics are frozen.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

DATA = Path(os.environ["ISAAC_ONNX_DATA"])

HEAD = """# Gradients of whole networks

Made by `tests/python/upgrade/light.py`: the networks of opset 9 that the onnx package brings, with random weights, at batch size 1. The gradients of
their training graphs are compared with PyTorch's autograd in double. Errors are relative: of all gradients as one vector, and of the parameter with
the largest.

- *In double*: the training graph's own operators, evaluated in double without autograd. What is left are constants that the graph holds as floats,
  such as 1/49 of an average.
- *In float*: the training graph in ONNX Runtime. In deep networks rounding puts some activations on the other side of a ReLU's kink, where the
  gradient jumps; the last column is the error of PyTorch's own gradient in float, from the same cause.

| network | nodes | trained tensors | numbers | in double | worst parameter | loss in float | in float | worst parameter | PyTorch in float |
|---|---|---|---|---|---|---|---|---|---|"""


def train(path, feeds):
    """Loss and gradients of the training graph."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map["isaac.training"])
    outputs = dict(zip([info.name for info in session.get_outputs()], session.run(None, feeds)))
    return outputs[described["loss"]], {entry["name"]: outputs[entry["gradient"]] for entry in described["parameters"]}


def distances(got, expected):
    """The length of the error relative to that of what is expected: over all tensors together, and of the worst."""
    squares = np.array([(np.square(got[name] - expected[name]).sum(), np.square(expected[name]).sum()) for name in expected])
    errors, lengths = squares.sum(axis=0)
    return np.sqrt(errors / lengths), np.sqrt(squares[:, 0] / squares[:, 1]).max()


def row(path):
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ["ISAAC_TORCH_PYTHON"], Path(__file__).with_name("light_reference.py"), path, folder]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        expected = dict(np.load(Path(folder, "expected.npz")))
        loss, gradients = train(Path(folder, "train.onnx"), dict(np.load(Path(folder, "feeds.npz"))))
    whole, worst = distances(gradients, expected)
    error = abs(loss - said["loss"]) / said["loss"]
    numbers = sum(value.size for value in expected.values()) / 1e6
    cells = [path.stem.removeprefix("light_"), said["nodes"], len(expected), f"{numbers:.1f} M"]
    measured = [said["gradient error"], said["worst parameter"], error, whole, worst, said["rounded"]]
    return "| " + " | ".join([*map(str, cells), *(f"{number:.0e}" for number in measured)]) + " |"


def main():
    onnxruntime.set_default_logger_severity(3)
    print(HEAD)
    for path in sorted((DATA / "light").glob("*.onnx")):
        print(row(path), flush=True)


if __name__ == "__main__":
    main()
