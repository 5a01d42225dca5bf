"""Dropout in training, and the random numbers that it uses."""

import numpy as np
import pytest
from graphs import Training, make, relative_error
from net import Net
from onnx import TensorProto

# No bound is exceeded by chance in more than one of 10⁵ runs; and seeds are fixed.
DEVIATIONS = 4.5
SHAPE = (40, 250)
RATIOS = {"a": 0.3, "b": 0.5, "c": 0.0}


def two_dropouts(element=TensorProto.FLOAT):
    """y = dropout(w) for three parameters, two of which drop, and cost = Σ y · c."""
    net = Net(opset=17, element=element)
    for name, ratio in RATIOS.items():
        net.data(f"{name}.c", list(SHAPE))
        net.weight(f"{name}.w", *SHAPE)
        # The default is 0.5.
        ratio = [net.constant(f"{name}.ratio", ratio)] if ratio != 0.5 else []
        net.op("Dropout", f"{name}.w", *ratio, into=f"{name}.y")
        net.output(f"{name}.y", list(SHAPE))
        net.op("Mul", f"{name}.y", f"{name}.c", into=f"{name}.p")
        net.op("ReduceSum", f"{name}.p", into=f"{name}.s", keepdims=0)
    net.op("Sum", *(f"{name}.s" for name in RATIOS), into="cost")
    net.output("cost", [])
    return net


def training(net, folder, watched=()):
    model = make(net.model(), folder, "--loss-output", "cost", "--optimizer", "none", "--method", "gradient")
    return Training(model, watched)


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_drops_and_scales(element, tmp_path):
    """The gradient passes only where something is kept, scaled as much as that is."""
    net = two_dropouts(element)
    graph = training(net, tmp_path)
    assert graph.map["scalars"] == {"seed": "seed"}
    tolerance = 1e-3 if element == TensorProto.FLOAT16 else 1e-6
    for seed in [0, 1, 2, -7, 2**62]:
        outputs = graph.run({**net.feeds, "seed": np.int64(seed)})
        for name, ratio in RATIOS.items():
            w, y = net.parameters[f"{name}.w"].astype(np.float64), outputs[f"{name}.y"]
            kept = y != 0
            deviation = np.sqrt(ratio * (1 - ratio) / kept.size)
            assert abs(kept.mean() - (1 - ratio)) <= DEVIATIONS * deviation, (name, seed)
            for axis in (0, 1):
                shares = kept.mean(axis)
                assert np.abs(shares - (1 - ratio)).max() <= DEVIATIONS * deviation * np.sqrt(shares.size), (name, seed)
            assert relative_error(y, w * kept / (1 - ratio)) < tolerance
            gradient = net.feeds[f"{name}.c"].astype(np.float64) * kept / (1 - ratio)
            assert relative_error(outputs[f"{name}.w.gradient"], gradient) < tolerance


def masks(graph, net, seed):
    outputs = graph.run({**net.feeds, "seed": np.int64(seed)})
    return [outputs[f"{name}.y"] != 0 for name in "ab"]


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_masks_are_repeatable_and_independent(tmp_path):
    net = two_dropouts()
    graph = training(net, tmp_path)
    drawn = {seed: masks(graph, net, seed) for seed in [*range(12), 2**31, 2**40]}
    for seed in drawn:
        assert all(map(np.array_equal, masks(graph, net, seed), drawn[seed]))
    default = graph.run(net.feeds)
    assert np.array_equal(default["a.y"] != 0, drawn[0][0])
    bound = DEVIATIONS / np.sqrt(np.prod(SHAPE))
    all_masks = [mask for pair in drawn.values() for mask in pair]
    for i, first in enumerate(all_masks):
        for second in all_masks[:i]:
            assert abs(correlation(first, second)) < bound
    # Nor is one a shifted copy of another.
    for shift in (1, 2, SHAPE[1]):
        for first, second in zip(all_masks, all_masks[2:]):
            assert abs(correlation(first.ravel()[shift:], second.ravel()[:-shift])) < bound


def test_mask_output(tmp_path):
    """What reads the mask reads the one that is used."""
    net = Net(opset=17)
    net.data("c", list(SHAPE))
    net.weight("w", *SHAPE)
    net.constant("ratio", 0.25)
    net.op("Dropout", "w", "ratio", into=["y", "mask"])
    net.output("mask", list(SHAPE), TensorProto.BOOL)
    net.output("y", list(SHAPE))
    net.op("ReduceSum", net.op("Mul", "y", "c", into="p"), into="cost", keepdims=0)
    net.output("cost", [])
    outputs = training(net, tmp_path).run(net.feeds)
    assert np.array_equal(outputs["mask"], outputs["y"] != 0)
    assert 0.7 < outputs["mask"].mean() < 0.8


def test_sampled_gradients_pass_where_the_others_do(tmp_path):
    """ζ's second backward pass goes through the same masks; labels and masks are drawn from one seed, independently."""
    net = Net(opset=17)
    net.data("x", ["N", 20], (200, 20))
    net.weight("v", 20, 30)
    net.weight("w", 30, 5)
    net.constant("ratio", 0.4)
    net.op("MatMul", net.op("Dropout", net.op("MatMul", "x", "v", into="xv"), "ratio", into="h"), "w", into="z")
    net.output("z", ["N", 5])
    arguments = ["--loss", "cross-entropy", "--optimizer", "none", "--method", "zeta"]
    model = make(net.model(), tmp_path, *arguments)
    nodes = [node for node in model.graph.node if node.domain == "ai.isaac"]
    assert len(nodes) == 2
    [node] = [node for node in nodes if node.input[1] == "x"]
    graph = Training(model, ["h", node.input[0], node.input[3]])
    assert graph.map["scalars"].keys() == {"lambda_a", "lambda_g", "seed"}
    outputs = graph.run({**net.feeds, "labels": np.zeros(200, np.int64), "seed": np.int64(5)})
    kept = outputs["h"] != 0
    assert abs(kept.mean() - 0.6) < DEVIATIONS * np.sqrt(0.24 / kept.size)
    for value in (node.input[0], node.input[3]):
        assert np.array_equal(outputs[value] != 0, kept)


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """For a seed: the uniform numbers of two dropouts, 250 000 each."""
    net = Net(opset=17)
    net.weight("w", 500, 500)
    net.op("Dropout", "w", into="y")
    net.op("Dropout", "y", into="u")
    net.op("ReduceSum", "u", into="cost", keepdims=0)
    net.output("cost", [])
    model = make(net.model(), tmp_path_factory.mktemp("uniform"), "--loss-output", "cost", "--optimizer", "none")
    compared = [node.input[0] for node in model.graph.node if node.op_type == "GreaterOrEqual"]
    assert len(compared) == 2
    graph = Training(model, compared)

    def draw(seed):
        outputs = graph.run({"seed": np.int64(seed)})
        return [outputs[name].astype(np.float64).ravel() for name in compared]

    return draw


SEEDS = [0, 1, 12345, -1, 2**31 - 1, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_numbers_are_uniform(seed, uniform):
    """Kolmogorov and Smirnov's distance, at a level of 10⁻⁵; and no number is 0 or 1."""
    for numbers in uniform(seed):
        n = numbers.size
        assert numbers.min() > 0 and numbers.max() < 1
        assert numbers.min() < 1e-4 and numbers.max() > 1 - 1e-4
        ranks, ordered = np.arange(n + 1) / n, np.sort(numbers)
        distance = max((ordered - ranks[:-1]).max(), (ranks[1:] - ordered).max())
        assert distance < np.sqrt(np.log(2 / 1e-5) / 2 / n)


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_numbers_are_independent(seed, uniform):
    """Of their neighbours, rows, columns, of those of another dropout, and of those of the next seed."""
    first, second = uniform(seed)
    after = uniform(seed - 1 if seed == 2**63 - 1 else seed + 1)[0]
    n = first.size
    for lag in (1, 2, 3, 7, 499, 500, 501, 1000):
        assert abs(np.corrcoef(first[lag:], first[:-lag])[0, 1]) < DEVIATIONS / np.sqrt(n - lag), lag
        assert abs(np.corrcoef(after[lag:], first[:-lag])[0, 1]) < DEVIATIONS / np.sqrt(n - lag), lag
        assert abs(np.corrcoef(after[:-lag], first[lag:])[0, 1]) < DEVIATIONS / np.sqrt(n - lag), lag
    for other in (second, after):
        assert abs(np.corrcoef(first, other)[0, 1]) < DEVIATIONS / np.sqrt(n)
    # Pairs and triples fill their square and cube evenly.
    for others in ([first[1:]], [second[1:]], [after[1:]], [first[1:], np.append(first[2:], first[0])]):
        counts = np.histogramdd([first[:-1], *others], bins=16 if len(others) == 1 else 8, range=[(0, 1)] * (len(others) + 1))[0]
        degrees = counts.size - 1
        expected = counts.sum() / counts.size
        deviation = (((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees)
        assert abs(deviation) < DEVIATIONS + 0.5, "its distribution has a longer tail than the normal one's"
