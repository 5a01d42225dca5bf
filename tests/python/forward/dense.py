"""A network of dense layers with ReLU between (`fc0.weight`, `fc0.bias`, …): its step in NumPy in double precision."""

import numpy as np
from isaac_gemm import Reference


def layer_inputs(arrays, x):
    """The input of each layer, and the prediction."""
    values = [np.asarray(x, np.float64)]
    layers = len(arrays) // 2
    for i in range(layers):
        z = values[-1] @ arrays[f"fc{i}.weight"].T.astype(np.float64) + arrays[f"fc{i}.bias"]
        values.append(z if i == layers - 1 else np.maximum(z, 0))
    return values


def output_gradients(arrays, values, dz):
    """The gradient with respect to each layer's output, given that with respect to the prediction."""
    gradients = [dz]
    for i in range(len(arrays) // 2 - 1, 0, -1):
        behind = gradients[0] @ arrays[f"fc{i}.weight"].astype(np.float64)
        gradients.insert(0, behind * (values[i] > 0))
    return gradients


def softmax(z):
    power = np.exp(z - z.max(1, keepdims=True))
    return power / power.sum(1, keepdims=True)


def zeta_star(g, a, damping):
    return Reference(a).for_gradients(g)(damping)


def zeta(g, a, sampled, lambda_a, lambda_g):
    left = np.eye(g.shape[1]) + sampled.T @ sampled / (len(g) * lambda_g)
    return np.linalg.solve(left, zeta_star(g, a, lambda_a))
