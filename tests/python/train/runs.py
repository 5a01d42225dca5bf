"""Running isaac-train, and what its runs start from and leave behind."""

import json
import os
import subprocess
from pathlib import Path

import mlp
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

WIDTHS = [6, 12, 3]


def environment():
    """The environment of a run: with the ONNX Runtime library of this Python package."""
    [library] = Path(onnxruntime.__file__).with_name("capi").glob("libonnxruntime.so.*")
    return os.environ | {"ORT_DYLIB_PATH": str(library)}


def command(*arguments):
    """A command line; ISAAC_RUNTIME, if set, says what runs the graphs."""
    runtime = ["--runtime", os.environ["ISAAC_RUNTIME"]] if "ISAAC_RUNTIME" in os.environ else []
    return [os.environ["ISAAC_TRAIN"], *map(str, arguments), *runtime]


def call(*arguments, **options):
    """Runs the program to its end."""
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, **options)


def train(*arguments, **options):
    """A run that succeeds; returns what `--json` prints."""
    done = call(*arguments, "--json", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Task:
    """Three noisy clusters in six dimensions, and a network to tell them apart, as files in a folder."""

    def __init__(self, folder, examples=48, widths=WIDTHS):
        self.folder = folder
        random = np.random.default_rng(7)
        self.labels = random.integers(widths[-1], size=examples)
        centres = random.normal(size=(widths[-1], widths[0]))
        self.x = (centres[self.labels] + random.normal(size=(examples, widths[0]))).astype(np.float32)
        self.data = folder / "data.npz"
        np.savez(self.data, input=self.x, labels=self.labels)
        self.model = folder / "forward.onnx"
        onnx.save(mlp.forward_model(widths, seed=3), self.model)

    def arguments(self, *more):
        """Of a run with this model and this data, on one thread. tract knows no other number, and is told none."""
        threads = [] if "ISAAC_RUNTIME" in os.environ else ["--threads", 1]
        return [self.model, "--data", self.data, "--loss", "cross-entropy", *threads, *more]


def weights(path):
    """The initializers of a model file by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
