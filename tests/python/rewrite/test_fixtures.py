"""The fixtures: training graphs of real exports, each with what PATTERNS.md says about it and what the original computes."""

import json

import checks
import numpy as np
import onnx
import pytest
from conftest import ROOT
from net import Case, layer
from tool import graphs, nodes, rewrite

FIXTURES = ROOT / "tests" / "fixtures"
EXPECTED = {path.parent.name: json.loads(path.read_text()) for path in sorted(FIXTURES.glob("*/expected.json"))}
# Whose products are there only once its Gradient is written out: test_symbolic.py.
SYMBOLIC = "traininginfo_gradient_op"
GRAPHS = [f"{name}/{graph}" for name, expected in EXPECTED.items() for graph in expected["graphs"] if name != SYMBOLIC]
# float16 products, whose precision is 5e-4.
TOLERANCES = {"castmix_f16_ts17": 2e-3}


@pytest.fixture(scope="module", params=GRAPHS)
def fixture(request):
    """A graph, as a case, and what the original computes."""
    name, graph = request.param.split("/")
    folder, expected = FIXTURES / name, EXPECTED[name]
    model = onnx.load(folder / graph)
    recorded = dict(np.load(folder / "io.npz"))
    found = [layer(e["weight"], *e["product_outputs"], reason=e["reason_code"]) for e in expected["graphs"][graph]]
    case = Case(request.param, model, feeds(model, folder, recorded), found, model.graph.output[0].name)
    case.tolerance = TOLERANCES.get(name, case.tolerance)
    return case, recorded, expected["must_stay"]


def feeds(model, folder, recorded):
    known = {key.split("/", 1)[1]: value for key, value in recorded.items() if key.startswith(("in/", "param/"))}
    known.update(target=recorded["target"], labels=recorded["target"], lazy_reset_grad=np.array([True]))
    if (folder / "forward.onnx").exists():
        initializers = onnx.load(folder / "forward.onnx").graph.initializer
        known.update({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in initializers})
    for value in model.graph.input:
        if value.name.endswith(".accumulation.buffer"):
            known[value.name] = np.zeros_like(known[value.name.removesuffix("_grad.accumulation.buffer")])
    return {value.name: known[value.name] for value in model.graph.input}


def test_layers(fixture, tmp_path):
    case, _, must_stay = fixture
    rewritten = rewrite(case.model.SerializeToString(), tmp_path)
    checks.check_structure(rewritten, case)
    before, after = makers(rewritten.before), makers(rewritten.after)
    for name in must_stay:
        assert after[name] == before[name]


def makers(model):
    """By the first output of each node: the node, encoded."""
    return {checks.parse(node).output[0]: node for node in nodes(next(graphs(model)))}


@pytest.mark.parametrize("scramble", checks.SCRAMBLES)
@pytest.mark.parametrize("seed", range(2))
def test_without_names(fixture, tmp_path, seed, scramble):
    checks.check_without_names(fixture[0], tmp_path, seed, scramble)


def test_numbers(fixture, tmp_path):
    case = fixture[0]
    checks.check_numbers(rewrite(case.model, tmp_path, "--lambda", checks.DAMPING), case)


def test_infinite_damping(fixture, tmp_path):
    """What the original computed when it was recorded comes back."""
    case, recorded, _ = fixture
    values = checks.check_plain(case.model, case, tmp_path)
    checks.assert_close(values[case.loss], recorded["loss"], case.tolerance, "loss")
    gradients = {key.removeprefix("grad/"): value for key, value in recorded.items() if key.startswith("grad/")}
    assert {found.weight for found in case.layers} <= gradients.keys()
    for parameter, value in gradients.items():
        checks.assert_close(values[f"{parameter}_grad"], value, case.tolerance, parameter)
