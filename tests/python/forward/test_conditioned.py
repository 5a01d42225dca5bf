"""zeta*, zeta and K-FAC in training graphs, against the formulas in NumPy in double precision."""

import dense
import numpy as np
import onnx
import pytest
from graphs import Training, make, relative_error
from net import Net
from networks import network as relu_network
from networks import random_layers, stored

WIDTHS, BATCH = (7, 9, 6, 5), 8
# Float arithmetic through three layers, and the inverse of a matrix whose condition is below 1e3.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(1)
    layers = random_layers(WIDTHS, seed=1)
    arrays = {f"{name}.{kind}": a for name, pair in layers for kind, a in zip(("weight", "bias"), pair)}
    return arrays, rng.normal(size=(BATCH, WIDTHS[0])).astype(np.float32), rng.integers(0, WIDTHS[-1], BATCH)


def forward(arrays):
    return relu_network(stored(arrays), "Relu").model()


def operators(model):
    return {node.output[0].split("/")[0]: node for node in model.graph.node if node.op_type == "IsaacGemm"}


def graph(network, folder, *arguments):
    model = make(forward(network[0]), folder, "--loss", "cross-entropy", "--optimizer", "none", *arguments)
    sampled = [node.input[3] for node in model.graph.node if node.op_type == "IsaacGemm" and len(node.input) > 3]
    return Training(model, watched=sampled), sampled


def expected_gradients(network):
    arrays, x, labels = network
    values = dense.layer_inputs(arrays, x)
    dz = (dense.softmax(values[-1]) - np.eye(WIDTHS[-1])[labels]) / BATCH
    return values, dense.output_gradients(arrays, values, dz)


def scalar(value):
    return np.array(value, np.float32)


@pytest.mark.parametrize("damping", [0.01, 1.0, 100.0, np.inf])
def test_zeta_star(network, damping, tmp_path):
    """The damping is an input, of which --lambda is the default."""
    training, _ = graph(network, tmp_path, "--lambda", damping)
    arrays, x, labels = network
    values, gradients = expected_gradients(network)
    for feeds, used in [({}, damping), ({"lambda_a": scalar(0.3)}, 0.3)]:
        got = training.gradients({"x": x, "labels": labels, **feeds})
        for i, g in enumerate(gradients):
            assert relative_error(got[f"fc{i}.weight"], dense.zeta_star(g, values[i], used)) < TOLERANCE
            assert relative_error(got[f"fc{i}.bias"], g.sum(0)) < TOLERANCE


@pytest.mark.parametrize("method", ["zeta", "kfac"])
@pytest.mark.parametrize("dampings", [(1.0, 1.0), (0.05, 0.02), (10.0, 0.5)])
def test_zeta_and_kfac(network, method, dampings, tmp_path):
    """With the sampled gradients that the graph itself drew, which test_sampling.py looks into."""
    lambda_a, lambda_g = dampings if method == "zeta" else (dampings[0], dampings[0])
    options = ["--lambda-g", lambda_g] if method == "zeta" else []
    training, sampled = graph(network, tmp_path, "--method", method, "--lambda", lambda_a, *options)
    arrays, x, labels = network
    values, gradients = expected_gradients(network)
    outputs = training.run({"x": x, "labels": labels, "seed": np.array(3)})
    assert len(sampled) == len(gradients)
    # The sampled gradients of the layers belong together: each follows from that of the prediction.
    drawn = {name: outputs[name].astype(np.float64) for name in sampled}
    by_width = {value.shape[1]: value for value in drawn.values()}
    dz = by_width[WIDTHS[-1]]
    one_hot = dense.softmax(values[-1]) - dz
    assert np.allclose(np.sort(one_hot, 1), np.eye(WIDTHS[-1])[-1], atol=1e-6)
    for i, expected in enumerate(dense.output_gradients(arrays, values, dz)):
        assert relative_error(by_width[WIDTHS[i + 1]], expected) < TOLERANCE
        conditioned = dense.zeta(gradients[i], values[i], expected, lambda_a, lambda_g)
        entry = next(p for p in training.map["parameters"] if p["name"] == f"fc{i}.weight")
        assert relative_error(outputs[entry["gradient"]], conditioned) < TOLERANCE


def test_chosen_layers(network, tmp_path):
    training, _ = graph(network, tmp_path, "--layers", "1,3", "--lambda", 0.1)
    arrays, x, labels = network
    values, gradients = expected_gradients(network)
    got = training.gradients({"x": x, "labels": labels})
    for i, g in enumerate(gradients):
        plain = g.T @ values[i]
        expected = plain if i == 1 else dense.zeta_star(g, values[i], 0.1)
        assert relative_error(got[f"fc{i}.weight"], expected) < TOLERANCE
        assert i == 1 or relative_error(plain, expected) > 0.1


def with_ones(values):
    """The layer's input with a feature that is one in each row."""
    return np.append(values, np.ones((*values.shape[:-1], 1)), axis=-1)


@pytest.mark.parametrize("method", ["zeta-star", "zeta", "kfac"])
def test_bias_with_its_weight(network, method, tmp_path):
    options = ["--lambda-g", 0.4] if method == "zeta" else []
    training, sampled = graph(network, tmp_path, "--with-bias", "--method", method, "--lambda", 0.1, *options)
    arrays, x, labels = network
    values, gradients = expected_gradients(network)
    outputs = training.run({"x": x, "labels": labels})
    gradient_of = {entry["name"]: entry["gradient"] for entry in training.map["parameters"]}
    for i, g in enumerate(gradients):
        expected = dense.zeta_star(g, with_ones(values[i]), 0.1)
        if sampled:
            [drawn] = {name for name in sampled if outputs[name].shape[1] == WIDTHS[i + 1]}
            lambda_g = 0.4 if method == "zeta" else 0.1
            expected = dense.zeta(g, with_ones(values[i]), outputs[drawn].astype(np.float64), 0.1, lambda_g)
        assert relative_error(outputs[gradient_of[f"fc{i}.weight"]], expected[:, :-1]) < TOLERANCE
        assert relative_error(outputs[gradient_of[f"fc{i}.bias"]], expected[:, -1]) < TOLERANCE
        assert relative_error(g.sum(0), expected[:, -1]) > 0.1


@pytest.mark.parametrize("axis", [-1, 0], ids=["tokens", "features-first"])
def test_bias_of_other_layouts(axis, tmp_path):
    """x W + b over tokens, and W x + b with features first; mean squared error."""
    rng = np.random.default_rng(5)
    net = Net()
    if axis == -1:
        net.data("x", ["N", 3, 7], rng.normal(size=(4, 3, 7)).astype(np.float32))
        net.weight("w", 7, 5), net.weight("b", 5)
        net.op("MatMul", "x", "w", into="z")
    else:
        net.data("x", [7, "N"], rng.normal(size=(7, 12)).astype(np.float32))
        net.weight("w", 5, 7), net.weight("b", 5, 1)
        net.op("MatMul", "w", "x", into="z")
    net.op("Add", "z", "b", into="y")
    net.output("y")
    arguments = ["--loss", "mse", "--optimizer", "none", "--lambda", 0.2, "--with-bias"]
    training = Training(make(net.model(), tmp_path, *arguments))
    x, w, b = net.feeds["x"], net.parameters["w"], net.parameters["b"]
    y = x @ w + b if axis == -1 else w @ x + b
    target = rng.normal(size=y.shape).astype(np.float32)
    got = training.gradients({"x": x, training.map["labels"][0]: target})
    g, a = 2 * (y - target).astype(np.float64) / y.size, x.astype(np.float64)
    g, a = (v.reshape(-1, v.shape[-1]) if axis == -1 else v.T for v in (g, a))
    expected = dense.zeta_star(g, with_ones(a), 0.2)
    assert relative_error(got["w"], expected[:, :-1].T if axis == -1 else expected[:, :-1]) < TOLERANCE
    assert relative_error(got["b"], expected[:, -1].reshape(b.shape)) < TOLERANCE


def test_gradient_has_no_operator_and_no_damping(network, tmp_path):
    model = make(forward(network[0]), tmp_path, "--loss", "cross-entropy", "--method", "gradient")
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.domain for entry in model.opset_import] == [""]
    assert set(Training(model).map["scalars"]) == {"lr"}
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("method", ["gradient", "zeta-star", "zeta", "kfac"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_lowers_the_loss(network, method, optimizer, tmp_path):
    arrays, x, labels = network
    arguments = ["--loss", "cross-entropy", "--method", method, "--optimizer", optimizer]
    training = Training(make(forward(arrays), tmp_path, *arguments))
    rate = scalar(0.3 if optimizer == "sgd" else 0.02)
    seeds = {"seed": 0} if method in ("zeta", "kfac") else {}
    losses = [
        training.step({"x": x, "labels": labels, "lr": rate, **{name: np.array(step) for name in seeds}})
        for step in range(60)
    ]
    assert losses[-1] < 0.5 * losses[0]
