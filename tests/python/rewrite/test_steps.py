"""Whole training steps in standard operators, written by hand under onnx/."""

import checks
import pytest
import step_net
from tool import rewrite


@pytest.fixture(scope="module", params=step_net.names())
def case(request):
    return step_net.build(request.param)


def test_layers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, *case.arguments)
    checks.check_structure(rewritten, case)


@pytest.mark.parametrize("scramble", checks.SCRAMBLES)
@pytest.mark.parametrize("seed", range(2))
def test_without_names(case, tmp_path, seed, scramble):
    checks.check_without_names(case, tmp_path, seed, scramble)


def test_numbers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING, *case.arguments)
    checks.check_numbers(rewritten, case)


def test_infinite_damping(case, tmp_path):
    checks.check_plain(case.model, case, tmp_path)
