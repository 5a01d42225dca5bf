"""Training graphs as ORTModule holds them, as training infos, and with optimizer nodes."""

import dataclasses

import checks
import containers
import corpus
import onnx
import pytest
import runtime
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
    """They say which gradient is whose, whatever the names. The runtime has no kernels for them; those of the preview domain are
    written out, the others stay."""
    case = containers.optimizer_node(op_type)
    rewritten = rewrite(case.model, tmp_path)
    checks.check_layers(rewritten, case)
    before, after = (without_update(onnx.load_from_string(model)) for model in (rewritten.before, rewritten.after))
    bare = dataclasses.replace(rewritten, before=before.SerializeToString(), after=after.SerializeToString())
    checks.check_untouched(bare, case)
    optimizers = [node for node in rewritten.model.graph.node if node.op_type == op_type]
    if op_type == "SGDOptimizer":
        assert list(optimizers) == [node for node in case.model.graph.node if node.op_type == op_type]
    else:
        assert not optimizers
        runtime.run(rewritten.model, case.feeds)
    for seed in range(4):
        checks.check_without_names(case, tmp_path, seed)


def without_update(model):
    """A copy without what makes the next parameters and their state."""
    model = onnx.load_from_string(model.SerializeToString())
    kept = [node for node in model.graph.node if not any(".next" in name for name in node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model
