"""Training graphs that ONNX Runtime's own generator writes, from the forward models under onnx/."""

import random
from dataclasses import replace

import checks
import corpus
import names
import numpy as np
import onnx
import pytest
import runtime
from tool import call, rewrite, training_map

CASES = corpus.names()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return corpus.generate(request.param)


def test_layers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path)
    checks.check_structure(rewritten, case)


@pytest.mark.parametrize("scramble", checks.SCRAMBLES)
@pytest.mark.parametrize("seed", range(2))
def test_without_names(case, tmp_path, seed, scramble):
    checks.check_without_names(case, tmp_path, seed, scramble)


def test_numbers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING)
    checks.check_numbers(rewritten, case)


@pytest.mark.parametrize("more", [(), ("--with-bias",)], ids=["weights", "weights-and-biases"])
def test_infinite_damping(case, more, tmp_path):
    checks.check_plain(case.model, replace(case, arguments=(*case.arguments, *more)), tmp_path)


def test_biases_with_their_weights(tmp_path):
    case = corpus.generate("mlp")
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING, "--with-bias")
    made_by = {node.output[0]: node for node in case.model.graph.node}
    original = runtime.run(case.model, case.feeds, [name for node in made_by.values() for name in node.input])
    got = runtime.run(rewritten.model, case.feeds, runtime.gradients(rewritten.model))
    assert len(rewritten.report["layers"]) == 2
    for layer in rewritten.report["layers"]:
        [product] = layer["product_outputs"]
        g, a = (original[name].astype(np.float64) for name in made_by[product].input[:2])
        assert layer["bias_gradient"]
        extended = np.append(a, np.ones((len(a), 1)), axis=1)
        damped = np.eye(len(a)) + extended @ extended.T / (len(a) * checks.DAMPING)
        expected = g.T @ np.linalg.solve(damped, extended)
        checks.assert_close(got[product], expected[:, :-1].astype(np.float32), 1e-5, product)
        bias = layer["weight"].replace(".w", ".b_grad")
        checks.assert_close(got[bias], expected[:, -1].astype(np.float32), 1e-5, bias)


def test_a_second_rewrite_changes_nothing(case, tmp_path):
    once = rewrite(case.model, tmp_path)
    again = rewrite(once.after, tmp_path)
    assert again.report["rewritten"] == 0
    assert again.after == once.after


def test_gradients_that_we_write_are_those_of_the_generator(case, tmp_path):
    source, target = tmp_path / "forward.onnx", tmp_path / "train.onnx"
    onnx.save(case.forward, source)
    done = call(source, "-o", target, "--loss", "mse", "--optimizer", "none", "--method", "gradient")
    if case.name.startswith("unknown_rank"):
        assert done.returncode == 1
        assert "1 operator cannot be differentiated" in done.stderr and "the rank of 'x' cannot be told" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    ours = onnx.load(target)
    roles = training_map(ours)
    labels = dict.fromkeys(roles["labels"], case.feeds["target"])
    got = runtime.run(ours, {name: case.feeds[name] for name in roles["data"]} | labels)
    expected = runtime.run(case.model, case.feeds, runtime.gradients(case.model))
    checks.assert_close(got[roles["loss"]], expected[case.loss], case.tolerance, "loss")
    # Constants that the generator leaves alone are parameters as well.
    gradients = {f"{entry['name']}_grad": got[entry["gradient"]] for entry in roles["parameters"]}
    for name in runtime.gradients(case.model):
        checks.assert_close(gradients[name], expected[name], case.tolerance, name)


def test_new_names_avoid_those_in_use(tmp_path):
    """Values already have the names that a rewrite of shared_linear would give to its own."""
    case = corpus.generate("shared_linear")
    ours = {name for node in rewrite(case.model, tmp_path).model.graph.node for name in node.output}
    theirs = {name for node in case.model.graph.node for name in node.output}
    forward = ["z0", "h0", "z1", "h1", "z2", "h2"]
    table = {name: name for name in names.value_names(case.model.graph)} | dict(zip(forward, sorted(ours - theirs)))
    names.rename(case.model.graph, table, random.Random(0))
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING)
    checks.check_layers(rewritten, case)
    checks.check_numbers(rewritten, case)
