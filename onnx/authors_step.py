"""Makes authors_step.npz: one training step by the ISAAC authors' own PyTorch code, for the tests to compare with.

    python3 -m venv authors-venv && authors-venv/bin/pip install isaac==0.1.1 torch==2.4.1 numpy==1.26.4
    authors-venv/bin/python onnx/authors_step.py MNIST_FOLDER

The step starts from the weights of mlp.py with seed 0, and takes the first 60 images of MNIST, lambda 1 in every
layer, and plain SGD with learning rate 1. What is kept is each parameter's change. A weight's change has rank 60 at
most, one per image, so it is stored as two thin factors; this script checks that they give it back. Their code runs
in double precision here, so that the whole of a difference is ours.
"""

import sys
from pathlib import Path

import isaac
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "python"))
import mnist  # noqa: E402
from mlp import WIDTHS, initial_parameters  # noqa: E402

BATCH = 60
LAMBDA = 1.0
LEARNING_RATE = 1.0


def network(parameters):
    layers = []
    for weight, bias in parameters:
        fan_out, fan_in = weight.shape
        layer = isaac.Linear(fan_in, fan_out, la=LAMBDA)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).double()


def thin_factors(change):
    """left @ right == change, up to float32 rounding."""
    left, values, right = np.linalg.svd(change, full_matrices=False)
    left = (left[:, :BATCH] * values[:BATCH]).astype(np.float32)
    right = right[:BATCH].astype(np.float32)
    error = np.abs(left @ right - change).max() / np.abs(change).max()
    assert error < 1e-6, f"rank {BATCH} is not enough: relative error {error}"
    return left, right


def main(folder):
    split = mnist.load(folder).train
    images = torch.from_numpy(split.images[:BATCH]).double()
    labels = torch.from_numpy(split.labels[:BATCH])
    parameters = initial_parameters(WIDTHS, seed=0)
    net = network(parameters)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    loss = torch.nn.CrossEntropyLoss()(net(images), labels)
    loss.backward()
    optimizer.step()

    kept = {"loss": np.float32(loss.item())}
    layers = [layer for layer in net if isinstance(layer, isaac.Linear)]
    for index, (layer, (weight, bias)) in enumerate(zip(layers, parameters)):
        kept[f"fc{index}.weight.left"], kept[f"fc{index}.weight.right"] = thin_factors(
            layer.weight.detach().numpy() - weight
        )
        kept[f"fc{index}.bias"] = (layer.bias.detach().numpy() - bias).astype(np.float32)
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **kept)


if __name__ == "__main__":
    main(sys.argv[1])
