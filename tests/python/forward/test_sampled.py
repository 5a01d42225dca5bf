"""Labels sampled from the model's distribution, and the random numbers behind them."""

import dense
import numpy as np
import pytest
from graphs import Training, make
from net import Net
from onnx import TensorProto

SEEDS = 400


def sampled_gradients(loss, rows, folder, *arguments, seeds=SEEDS, widths=(4, 5)):
    """A layer whose output is the prediction: the prediction, and the sampled gradient for each seed."""
    rng = np.random.default_rng(0)
    arrays = {"fc0.weight": rng.normal(size=widths[::-1]).astype(np.float32), "fc0.bias": np.zeros(widths[1], np.float32)}
    model = make(dense.forward(arrays), folder, "--loss", loss, "--method", "zeta", "--optimizer", "none", *arguments)
    [name] = [node.input[3] for node in model.graph.node if node.op_type == "IsaacGemm"]
    training = Training(model, watched=[name])
    feeds = {"x": rng.normal(size=(rows, widths[0])).astype(np.float32)}
    feeds["labels"] = np.arange(rows) % widths[1] if loss == "cross-entropy" else rng.random((rows, widths[1]), np.float32)
    if "--ignore-index" in arguments:
        feeds["labels"][::3] = -1
    outputs = [training.run({**feeds, "seed": np.array(seed)}) for seed in range(seeds)]
    repeated = training.run({**feeds, "seed": np.array(seeds - 1)})
    assert np.array_equal(repeated[name], outputs[-1][name]), "a seed gives the same labels again"
    assert any(not np.array_equal(outputs[0][name], other[name]) for other in outputs[1:5])
    return outputs[0]["z"].astype(np.float64), np.array([output[name] for output in outputs], np.float64), feeds


def test_classes_are_drawn_as_often_as_the_softmax_says(tmp_path):
    z, gradients, _ = sampled_gradients("cross-entropy", 6, tmp_path)
    p = dense.softmax(z)
    drawn = p - gradients
    assert np.allclose(np.sort(drawn, -1), np.eye(5)[-1], atol=1e-6), "one class each"
    frequencies = drawn.sum(0)
    expected = SEEDS * p
    statistic = ((frequencies - expected) ** 2 / expected).sum()
    # Chi-square with 6 · 4 degrees of freedom: above 59 in one of 10,000 cases.
    assert statistic < 59


@pytest.mark.parametrize("loss", ["cross-entropy", "bce", "mse"])
def test_outer_products_tend_to_the_hessian(loss, tmp_path):
    """The mean of ḡᵀḡ over samples is the Hessian of an example's loss with respect to its prediction."""
    z, gradients, _ = sampled_gradients(loss, 3, tmp_path, seeds=2000)
    mean = np.einsum("sni,snj->nij", gradients, gradients) / len(gradients)
    width = z.shape[1]
    for row in range(len(z)):
        if loss == "cross-entropy":
            p = dense.softmax(z[row : row + 1])[0]
            hessian = np.diag(p) - np.outer(p, p)
        elif loss == "bce":
            p = 1 / (1 + np.exp(-z[row]))
            hessian = np.diag(p * (1 - p)) / width
        else:
            hessian = 2 * np.eye(width) / width
        # Standard errors are below 0.02 of the largest element here.
        assert np.abs(mean[row] - hessian).max() < 0.1 * np.abs(hessian).max()


def test_labels_that_do_not_count_have_no_sampled_gradient(tmp_path):
    _, gradients, feeds = sampled_gradients("cross-entropy", 6, tmp_path, "--ignore-index", -1, seeds=6)
    is_ignored = feeds["labels"] == -1
    assert not gradients[:, is_ignored].any()
    assert np.abs(gradients[:, ~is_ignored]).min(axis=(0, 2)).min() >= 0 and gradients[:, ~is_ignored].any(axis=2).all()


class Dropout:
    """Two dropouts side by side on the same parameter."""

    def __init__(self, folder, size=100_000, ratio=0.3):
        net = Net(opset=17, element=TensorProto.FLOAT)
        net.data("scale", [1])
        net.constant("w", np.ones(size, np.float32))
        net.constant("ratio", np.array(ratio, np.float32))
        for name in ("a", "b"):
            net.op("Dropout", "w", "ratio", into=name)
        product = net.op("Mul", net.op("Add", "a", net.op("Mul", "b", "b", into="bb"), into="sum"), "scale", into="scaled")
        net.op("ReduceSum", product, into="cost", keepdims=0)
        net.output("cost", [])
        self.training = Training(
            make(net.model(), folder, "--loss-output", "cost", "--optimizer", "none"), watched=["a", "b"]
        )

    def run(self, seed):
        return self.training.run({"scale": np.ones(1, np.float32), "seed": np.array(seed)})


def test_dropout(tmp_path):
    dropout = Dropout(tmp_path)
    first, again, other = dropout.run(7), dropout.run(7), dropout.run(8)
    a, b = first["a"], first["b"]
    assert np.array_equal(a, again["a"]) and not np.array_equal(a, other["a"])
    # What is kept is scaled by 1 / (1 - 0.3).
    assert np.allclose(a[a != 0], 1 / 0.7)
    kept = np.array([a != 0, b != 0, other["a"] != 0])
    # 1e5 draws: a standard deviation of a frequency is 0.0015, of a correlation 0.0032.
    assert np.allclose(kept.mean(1), 0.7, atol=0.006)
    correlations = np.corrcoef([*kept, np.roll(kept[0], 1), np.roll(kept[0], 2), np.roll(kept[0], 100)])
    assert np.abs(correlations - np.eye(6)).max() < 0.013
    # d(a + b²)/dw passes where kept only.
    assert np.allclose(first["w.gradient"], a + 2 * b * b, rtol=1e-6)


def test_random_numbers_are_uniform(tmp_path):
    """The share that a dropout keeps is that of its ratio, for each ratio: the distribution function of the numbers."""
    for ratio in (0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999):
        (tmp_path / str(ratio)).mkdir()
        dropout = Dropout(tmp_path / str(ratio), ratio=ratio)
        for seed in (0, 1, 2**40):
            share = (dropout.run(seed)["a"] != 0).mean()
            # Kolmogorov-Smirnov at 1e5 numbers: 0.0062 in one of 1,000 cases.
            assert abs(share - (1 - ratio)) < 0.0062
