"""Drives a training graph for some steps, as a program of its own too, so that one ONNX Runtime can be compared with another.

python steps.py train.onnx feeds.npz STEPS results.npz
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1] / "operator"))
    sys.path.append(str(Path(__file__).parents[1] / "rewrite"))

from graphs import Training  # noqa: E402


def run(model, feeds, count):
    """The loss of each step, and what is carried on after the last one; random numbers have the step's number as their seed."""
    training, feeds = Training(onnx.load(model)), dict(np.load(feeds))
    losses = []
    for step in range(count):
        seed = {name: np.int64(step) for role, name in training.map["scalars"].items() if role == "seed"}
        losses.append(training.step({**feeds, **seed}))
    return {"version": onnxruntime.__version__, "losses": np.array(losses), **training.carried}


if __name__ == "__main__":
    path, feeds, count, results = sys.argv[1:]
    np.savez(results, **run(path, feeds, int(count)))
