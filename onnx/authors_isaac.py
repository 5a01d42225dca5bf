"""Writes authors_isaac.npz: weight gradients by the authors' own package, for the tests of the operator.

Made with isaac 0.1.1, torch 2.15.0 and numpy 2.4.6 from PyPI (Python 3.11):

    pip install isaac==0.1.1 torch==2.15.0 numpy==2.4.6
    python onnx/authors_isaac.py

The package's default mode `inverse` is used; its mode `cholesky_inverse` gives another, wrong matrix, because it passes
the matrix where torch expects its factor. Everything is in double, so that only the formula is compared.
"""

from pathlib import Path

import numpy as np
import torch
from isaac import Linear

CASES = [(1, 5, 3), (8, 20, 6), (24, 12, 7), (30, 30, 9)]
DAMPINGS = [1e-2, 1.0, 1e2]


def gradient(g, a, damping):
    """The gradient of the layer's weight when the loss's gradient at its output is g."""
    layer = Linear(a.shape[1], g.shape[1], la=damping, bias=False, dtype=torch.float64)
    layer(torch.from_numpy(a)).backward(torch.from_numpy(g))
    return layer.weight.grad.numpy()


def main():
    rng = np.random.default_rng(2023)
    arrays = {}
    for case, (rows, features, outputs) in enumerate(CASES):
        g, a = rng.normal(size=(rows, outputs)), np.maximum(rng.normal(size=(rows, features)), 0)
        arrays |= {f"{case}.g": g, f"{case}.a": a}
        arrays |= {f"{case}.dw.{damping}": gradient(g, a, damping) for damping in DAMPINGS}
    np.savez_compressed(Path(__file__).with_name("authors_isaac.npz"), **arrays)


if __name__ == "__main__":
    main()
