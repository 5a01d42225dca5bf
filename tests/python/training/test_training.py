"""A short training run: zeta* learns, and faster than the gradient does."""

from itertools import islice

import numpy as np

from training import Run, batches

STEPS = 300


def train(run, data):
    for images, labels in islice(batches(data.train, epochs=1, seed=0), STEPS):
        run.step(images, labels)
    return float(np.mean(run.losses[-50:]))


def test_zeta_star_learns_mnist(artifacts, rewrite, library, data):
    rewritten = rewrite(artifacts / "training_model.onnx", "--lambda", "1", "--expect", "5")
    isaac = Run(artifacts, 1.0, rewritten, library)
    gradient = Run(artifacts, 0.3)

    isaac_loss, gradient_loss = train(isaac, data), train(gradient, data)

    assert isaac.losses[0] == gradient.losses[0], "both start from the same weights and the same batch"
    assert isaac_loss < 0.3
    assert isaac_loss < 0.75 * gradient_loss
    loss, accuracy = isaac.evaluate(data.test)
    assert loss < 0.3
    assert accuracy > 0.91


def test_batches_come_in_the_same_order_for_the_same_seed(data):
    first, again, other = (
        [labels for _, labels in islice(batches(data.train, epochs=1, seed=seed), 3)] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
