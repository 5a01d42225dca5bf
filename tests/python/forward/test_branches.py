"""A forward model with an If on a condition that depends on the data, whose branches read weights of the graph around."""

import dense
import numpy as np
import onnx
import pytest
from graphs import Training, make, relative_error
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(6)
WEIGHTS = {
    "shared": RNG.normal(size=(7, 5)).astype(np.float32),
    "gain": RNG.normal(size=7).astype(np.float32),
    "head": RNG.normal(size=(4, 7)).astype(np.float32),
}
X, LABELS = RNG.normal(size=(6, 5)).astype(np.float32), RNG.integers(0, 4, 6)


def forward():
    """h = tanh(x sharedᵀ) · gain where the sum of x is positive, and relu(x sharedᵀ) elsewhere; z = h headᵀ."""
    info = helper.make_tensor_value_info
    product = helper.make_node("Gemm", ["x", "shared"], ["p"], transB=1)
    result = [info("r", TensorProto.FLOAT, ["N", 7])]
    then = [product, helper.make_node("Tanh", ["p"], ["t"]), helper.make_node("Mul", ["t", "gain"], ["r"])]
    other = [product, helper.make_node("Relu", ["p"], ["r"])]
    branches = {"then_branch": then, "else_branch": other}
    branches = {name: helper.make_graph(nodes, name, [], result) for name, nodes in branches.items()}
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["is_positive"]),
        helper.make_node("If", ["is_positive"], ["h"], **branches),
        helper.make_node("Gemm", ["h", "head"], ["z"], transB=1),
    ]
    tensors = WEIGHTS | {"zero": np.array(0, np.float32)}
    graph = helper.make_graph(
        nodes,
        "choice",
        [info("x", TensorProto.FLOAT, ["N", 5])],
        [info("z", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def expected(x):
    """The gradients, and the input of the last layer with the gradient of its output."""
    w = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}
    x = x.astype(np.float64)
    p = x @ w["shared"].T
    t = np.tanh(p)
    h = t * w["gain"] if x.sum() > 0 else np.maximum(p, 0)
    g = (dense.softmax(h @ w["head"].T) - np.eye(4)[LABELS]) / len(x)
    dh = g @ w["head"]
    dp = dh * w["gain"] * (1 - t * t) if x.sum() > 0 else dh * (p > 0)
    gain = (dh * t).sum(0) if x.sum() > 0 else np.zeros(7)
    return {"shared": dp.T @ x, "gain": gain, "head": g.T @ h}, h, g


@pytest.mark.parametrize("method", ["gradient", "zeta-star"])
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients(sign, method, tmp_path):
    """Only the last layer has a product that can be conditioned: those of the branches come out of one node."""
    model = make(forward(), tmp_path, "--loss", "cross-entropy", "--optimizer", "none", "--method", method, "--lambda", 0.2)
    onnx.checker.check_model(model, full_check=method == "gradient")
    training = Training(model)
    x = X * np.sign(X.sum()) * np.float32(sign)
    gradients, h, g = expected(x)
    if method == "zeta-star":
        gradients["head"] = dense.zeta_star(g, h, 0.2)
    got = training.gradients({"x": x, "labels": LABELS})
    assert got.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert relative_error(got[name], gradient) < 1e-5, name


@pytest.mark.parametrize("method", ["gradient", "zeta-star", "zeta"])
def test_steps_lower_the_loss(method, tmp_path):
    training = Training(make(forward(), tmp_path, "--loss", "cross-entropy", "--optimizer", "momentum", "--method", method))
    losses = [training.step({"x": X, "labels": LABELS, "lr": np.float32(0.1)}) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
