"""The network of the demo and of the training tests: five linear layers with ReLU between, and its initial weights."""

import numpy as np

WIDTHS = [784, 400, 400, 400, 400, 10]


def initial_parameters(widths, seed):
    """The (weight, bias) of each layer, drawn as PyTorch's nn.Linear draws them: U(-1/sqrt(n), 1/sqrt(n)), n inputs."""
    generator = np.random.default_rng(seed)
    parameters = []
    for fan_in, fan_out in zip(widths, widths[1:]):
        bound = 1.0 / np.sqrt(fan_in)
        weight = generator.uniform(-bound, bound, (fan_out, fan_in))
        bias = generator.uniform(-bound, bound, fan_out)
        parameters.append((weight.astype(np.float32), bias.astype(np.float32)))
    return parameters
