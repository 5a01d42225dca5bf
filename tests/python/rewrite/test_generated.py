"""Training graphs that ONNX Runtime's own generator writes, from the forward models under onnx/."""

import checks
import corpus
import pytest
from tool import rewrite

CASES = corpus.names()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return corpus.generate(request.param)


def test_layers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path)
    checks.check_layers(rewritten, case)
    checks.check_untouched(rewritten, case)
    checks.check_valid(rewritten)


@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_without_names(case, tmp_path, seed, reorder):
    checks.check_without_names(case, tmp_path, seed, reorder)


def test_numbers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING)
    checks.check_numbers(rewritten, case)


def test_infinite_damping(case, tmp_path):
    checks.check_plain(case.model, case, tmp_path)
