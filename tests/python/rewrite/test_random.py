"""Training steps drawn at random."""

import checks
import pytest
import random_steps
from tool import rewrite

SEEDS = range(60)


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
