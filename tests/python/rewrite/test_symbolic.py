"""Gradient of ai.onnx.preview.training in the algorithm of a training info, written out, and its products conditioned."""

import containers
import numpy as np
import onnx
import pytest
import runtime
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper
from tool import call, rewrite

FIXTURE = ROOT / "tests" / "fixtures" / "traininginfo_gradient_op" / "model.onnx"
RNG = np.random.default_rng(4)
X, LABELS = RNG.normal(size=(6, 4)).astype(np.float32), RNG.integers(0, 5, 6)
RATE, DAMPING = 0.1, 0.5


def algorithm(rewritten):
    """Loss and updated values as the runtime computes them."""
    return runtime.run(containers.algorithm_of(rewritten.model), {"x": X, "t": LABELS})


def softmax(z):
    power = np.exp(z - z.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def conditioned(g, a, damping):
    """ζ*; the plain gradient for an infinite damping."""
    plain = g.T @ a
    return plain if np.isinf(damping) else plain @ np.linalg.inv(np.eye(a.shape[1]) + a.T @ a / (len(a) * damping))


@pytest.mark.parametrize("damping", [np.inf, DAMPING])
def test_fixture(damping, tmp_path):
    rewritten = rewrite(FIXTURE.read_bytes(), tmp_path, "--lambda", damping)
    assert rewritten.layers == {"W": (frozenset(["dW/Gemm"]), None)}
    got = algorithm(rewritten)
    w, x = numpy_helper.to_array(rewritten.model.graph.initializer[0]).astype(np.float64), X.astype(np.float64)
    p = softmax(x @ w.T)
    g = (p - np.eye(5)[LABELS]) / len(x)
    np.testing.assert_allclose(got["loss"], -np.log(p[np.arange(6), LABELS]).mean(), rtol=1e-6)
    np.testing.assert_allclose(got["W_new"], w - RATE * conditioned(g, x, damping), rtol=1e-5, atol=1e-6)


def two_layers(activation):
    """A model whose algorithm has a Gradient of two weights, which Momentum updates."""
    w0, w1 = RNG.normal(size=(4, 7)).astype(np.float32), RNG.normal(size=(7, 5)).astype(np.float32)
    preview = "ai.onnx.preview.training"
    forward = [
        helper.make_node("MatMul", ["x", "w0"], ["z"]),
        helper.make_node(activation, ["z"], ["h"]),
        helper.make_node("MatMul", ["h", "w1"], ["y"]),
    ]
    weights = ["w0", "w1"]
    step = [
        helper.make_node("SoftmaxCrossEntropyLoss", ["y", "t"], ["loss"]),
        helper.make_node("Gradient", ["w0", "w1", "x", "t"], ["d0", "d1"], domain=preview, xs=weights, zs=["x", "t"], y="loss"),
        helper.make_node(
            "Momentum",
            ["rate", "count", "w0", "w1", "d0", "d1", "v0", "v1"],
            ["w0.next", "w1.next", "v0.next", "v1.next"],
            domain=preview,
            alpha=0.9,
            beta=1.0,
            norm_coefficient=0.0,
            mode="standard",
        ),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, ["N", 4]), info("t", TensorProto.INT64, ["N"])]
    tensors = {"w0": w0, "w1": w1, "v0": np.zeros_like(w0), "v1": np.zeros_like(w1)}
    updated = [info(f"{name}.next", TensorProto.FLOAT, value.shape) for name, value in tensors.items()]
    main = helper.make_graph(
        [containers.renamed(node, {"z", "h", "y"}) for node in forward],
        "inference",
        inputs[:1],
        [info("inference:y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    constants = {"rate": np.array(RATE, np.float32), "count": np.array(1)}
    graph = helper.make_graph(
        [*forward, *step],
        "algorithm",
        inputs,
        [info("loss", TensorProto.FLOAT, []), *updated],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(main, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(preview, 1)], ir_version=8)
    bound = [(name, f"{name}.next") for name in tensors]
    model.training_info.append(helper.make_training_info(graph, bound, None, None))
    return model, w0.astype(np.float64), w1.astype(np.float64)


@pytest.mark.parametrize("damping", [np.inf, DAMPING])
def test_two_weights_and_momentum(damping, tmp_path):
    model, w0, w1 = two_layers("Tanh")
    rewritten = rewrite(model, tmp_path, "--lambda", damping)
    onnx.checker.check_model(rewritten.model if np.isinf(damping) else model)
    got = algorithm(rewritten)
    x = X.astype(np.float64)
    h = np.tanh(x @ w0)
    p = softmax(h @ w1)
    g1 = (p - np.eye(5)[LABELS]) / len(x)
    g0 = (g1 @ w1.T) * (1 - h * h)
    for name, w, g, a in [("w0", w0, g0, x), ("w1", w1, g1, h)]:
        expected = w - RATE * conditioned(g, a, damping).T
        np.testing.assert_allclose(got[f"{name}.next"], expected, rtol=1e-5, atol=1e-6)


def test_an_operator_without_a_gradient_is_named(tmp_path):
    model, *_ = two_layers("DFT")
    source = tmp_path / "model.onnx"
    onnx.save(model, source)
    done = call(source, "-o", tmp_path / "out.onnx")
    assert done.returncode == 1 and not (tmp_path / "out.onnx").exists()
    assert "DFT 'h': there is no gradient rule for this operator (on the way to w0)" in done.stderr
