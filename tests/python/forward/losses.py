"""Losses in NumPy, in double precision, and their gradients by central differences."""

import numpy as np

STEP = 1e-5


def cross_entropy(z, labels, axis=-1, ignored=None, weights=None):
    counts = np.ones(labels.shape) if ignored is None else (labels != ignored).astype(float)
    index = np.expand_dims(np.where(counts > 0, labels, 0), axis)
    each = -np.take_along_axis(log_softmax(z, axis), index, axis).squeeze(axis)
    return mean(each, counts * per_example(each, weights))


def soft_cross_entropy(z, t, axis=-1, weights=None):
    each = -(t * log_softmax(z, axis)).sum(axis)
    return mean(each, per_example(each, weights))


def mse(z, t, weights=None):
    return mean((z - t) ** 2, per_example(z, weights))


def l1(z, t, weights=None):
    return mean(abs(z - t), per_example(z, weights))


def bce(z, t, weights=None):
    return mean(t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z), per_example(z, weights))


def log_softmax(z, axis=-1):
    shifted = z - z.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def per_example(each, weights):
    """A weight for each element of `each`, whose first axis is that of examples."""
    if weights is None:
        return np.ones(each.shape)
    return np.broadcast_to(weights.reshape(-1, *[1] * (each.ndim - 1)), each.shape)


def mean(each, weights):
    return (each * weights).sum() / weights.sum()


def differences(function, z):
    """The gradient of a function of an array."""
    gradient = np.empty(z.shape)
    for place in np.ndindex(z.shape):
        moved = np.zeros(z.shape)
        moved[place] = STEP
        gradient[place] = (function(z + moved) - function(z - moved)) / (2 * STEP)
    return gradient
