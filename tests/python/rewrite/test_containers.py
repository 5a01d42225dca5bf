"""Training graphs as ORTModule holds them, as training infos, and with optimizer nodes."""

import checks
import containers
import corpus
import pytest
from tool import rewrite

INFOS = ["mlp_sgd", "mlp_momentum", "mlp_adam", "attention_momentum", "clipped"]
OPTIMIZERS = ["SGDOptimizer", "Adam", "Momentum", "Adagrad"]
BUILD = {"module": containers.ort_module, "info": containers.training_info}


@pytest.fixture(
    scope="module",
    params=[("module", n) for n in corpus.names()] + [("info", n) for n in INFOS],
    ids=lambda p: "-".join(p),
)
def case(request):
    kind, name = request.param
    return BUILD[kind](name)


def test_layers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, *case.arguments)
    checks.check_structure(rewritten, case)


@pytest.mark.parametrize("scramble", checks.SCRAMBLES)
def test_without_names(case, tmp_path, scramble):
    checks.check_without_names(case, tmp_path, 0, scramble)


def test_numbers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING, *case.arguments)
    checks.check_numbers(rewritten, case)
    checks.check_plain(case.model, case, tmp_path)


@pytest.mark.parametrize("op_type", OPTIMIZERS)
def test_optimizer_nodes(op_type, tmp_path):
    """The runtime has no kernels for most of these: structure only. They say which gradient is whose, whatever the names."""
    case = containers.optimizer_node(op_type)
    rewritten = rewrite(case.model, tmp_path)
    checks.check_layers(rewritten, case)
    checks.check_untouched(rewritten, case)
    for seed in range(4):
        checks.check_without_names(case, tmp_path, seed)
