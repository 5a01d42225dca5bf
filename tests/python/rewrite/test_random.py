"""Training steps drawn at random."""

import dataclasses

import checks
import numpy as np
import pytest
import random_steps
import runtime
from onnx import TensorProto
from tool import rewrite

# Behind the first forty, some that a rewriter got wrong once.
SEEDS = [*range(40), 51, 59, 64, 97, 115, 116, 130, 143, 151, 182, 192, 209, 249, 378, 435, 444, 453, 653, 660, 690, 1058]


@pytest.mark.parametrize("seed", SEEDS)
def test_step(seed, tmp_path):
    case = random_steps.build(seed)
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING)
    checks.check_layers(rewritten, case)
    checks.check_untouched(rewritten, case)
    checks.check_numbers(rewritten, case)
    for scramble in checks.SCRAMBLES:
        checks.check_without_names(case, tmp_path, seed, scramble)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_as_outputs(seed, tmp_path):
    """Here only the names of gradients say which of two weights of one shape and input they are for."""
    case = random_steps.build(seed, update="none")
    checks.check_layers(rewrite(case.model, tmp_path), case)
    checks.check_plain(case.model, case, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
def test_generated(seed, tmp_path):
    """Of the same forward passes, the training graphs that ONNX Runtime generates."""
    case = random_steps.generate(seed)
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING)
    found = rewritten.layers
    assert {weight: reason for weight, (_, reason) in found.items()} == {e.weight: e.reason for e in case.layers}
    case.layers = [dataclasses.replace(e, groups=(tuple(sorted(found[e.weight][0])),)) for e in case.layers]
    checks.check_products(case)
    checks.check_untouched(rewritten, case)
    checks.check_numbers(rewritten, case)
    for scramble in checks.SCRAMBLES:
        checks.check_without_names(case, tmp_path, seed, scramble)


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_are_right(seed):
    """The drawn gradients are the derivatives of the loss: along a random direction, against a central difference in double."""
    case = random_steps.build(seed, update="none", element=TensorProto.DOUBLE)
    generator, step = np.random.default_rng(seed), 1e-6
    for weight in (layer.weight for layer in case.layers):
        along = generator.standard_normal(case.feeds[weight].shape)
        moved = [{**case.feeds, weight: case.feeds[weight] + sign * step * along} for sign in (1, -1)]
        above, below = (runtime.run(case.model, feeds)["loss"] for feeds in moved)
        slope = (runtime.run(case.model, case.feeds)[f"{weight}_grad"] * along).sum()
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-6, abs=1e-9)
