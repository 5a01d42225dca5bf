"""Trains a rewritten training step in any ONNX Runtime, from Python.

    isaac-rewrite onnx/spiral_step.onnx -o step.onnx --lambda 1
    python examples/train.py step.onnx target/release/libisaac.so
"""

import sys

import numpy as np
import onnxruntime


def spirals(points=100):
    """Two interleaved spirals: rows (x, y), and which spiral each row lies on."""
    t = np.arange(1, points + 1) / points
    arms = [np.stack([t * np.cos(4 * t + turn), t * np.sin(4 * t + turn)], axis=1) for turn in (0, np.pi)]
    return np.concatenate(arms).astype(np.float32), np.repeat([0, 1], points)


def main(model, library):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    x, labels = spirals()
    feeds = {"x": x, "labels": labels, "learning_rate": np.array(3, np.float32)}
    outputs = [output.name for output in session.get_outputs()]
    for step in range(200):
        results = dict(zip(outputs, session.run(outputs, feeds)))
        loss = results.pop("loss").item()
        feeds |= {name.removesuffix(".updated"): weight for name, weight in results.items()}
        if step == 0:
            print(f"first loss {loss:.4f}")
    print(f"last loss {loss:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
