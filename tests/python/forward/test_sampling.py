"""Labels that are drawn from the model: how often, and what the outer products of their gradients tend to."""

import losses
import numpy as np
import pytest
from graphs import Training, make, relative_error
from net import Net
from onnx import TensorProto

# No bound is exceeded by chance in more than one of 10⁵ runs; and seeds are fixed.
DEVIATIONS = 4.5
SEEDS = 20


class Sampler:
    """The gradients for sampled labels of a prediction z = x w, whose rows are the same for all examples."""

    def __init__(self, folder, z, examples, *arguments, element=TensorProto.FLOAT, permutation=None, dynamic=False):
        """`z` is one row, or several, one for each place."""
        net = Net(opset=17, element=element)
        self.z, self.net = np.atleast_2d(z).astype(np.float64), net
        places, width = self.z.shape
        dtype = net.normal(1).dtype
        lead = [examples] if np.ndim(z) == 1 else [examples, places]
        self.x = np.broadcast_to(np.eye(places, dtype=dtype), (examples, places, places)).reshape(*lead, places)
        net.data("x", ["N", "L"][: len(lead)] + [places] if dynamic else [*lead, places], self.x)
        net.constant("w", self.z.astype(dtype))
        shape = ["N", "L"][: len(lead)] + [width] if dynamic else [*lead, width]
        product = net.op("MatMul", "x", "w", into="z" if permutation is None else "xw")
        if permutation is not None:
            net.op("Transpose", product, into="z", perm=permutation)
            shape = [shape[axis] for axis in permutation]
        net.output("z", shape)
        # The damping is not infinite, so that the second factor is there.
        conditioned = ["--method", "zeta", "--lambda-g", "1"]
        model = make(net.model(), folder, *arguments, "--optimizer", "none", *conditioned)
        [node] = [node for node in model.graph.node if node.domain == "ai.isaac"]
        self.value, self.training = node.input[3], Training(model, [node.input[3]])

    def rows(self, labels, seeds=range(SEEDS)):
        """[seeds, examples, places, width]"""
        feeds = [{"x": self.x, "labels": labels, "seed": np.int64(seed)} for seed in seeds]
        drawn = [self.training.run(fed)[self.value] for fed in feeds]
        return np.stack(drawn).reshape(len(feeds), -1, *self.z.shape)


def chi_square(counts, expected):
    """In standard deviations above its expectation."""
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees)


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("axis", [None, 1, 2])
def test_classes_are_as_frequent_as_the_softmax_says(axis, dynamic, element, tmp_path):
    """For a row of each example, and for places of a sequence with classes last and in the middle."""
    rows = np.array([[0.5, -1.0, 2.0, 0.0, -20.0], [-2.0, 1.0, 1.0, 1.5, -20.0], [3.0, 0.0, 0.0, -1.0, -20.0]])
    z, examples = (rows[0], 600) if axis is None else (rows, 200)
    told = [] if axis is None else ["--class-axis", axis]
    permutation = [0, 2, 1] if axis == 1 else None
    options = dict(element=element, permutation=permutation, dynamic=dynamic)
    sampler = Sampler(tmp_path, z, examples, "--loss", "cross-entropy", *told, **options)
    labels = np.zeros((examples,) if axis is None else (examples, 3), np.int64)
    gradients = sampler.rows(labels)
    drawn = gradients.argmin(-1)
    for place, logits in enumerate(sampler.z):
        p = np.exp(losses.log_softmax(logits))
        tolerance = 1e-3 if element == TensorProto.FLOAT16 else 1e-6
        assert np.abs(gradients[:, :, place] - (p - np.eye(5)[drawn[:, :, place]])).max() < tolerance
        counts = np.bincount(drawn[:, :, place].ravel(), minlength=5)
        assert counts[4] == 0, "one of 10⁸"
        assert chi_square(counts[:4], p[:4] * counts.sum()) < DEVIATIONS
    # Places are drawn independently of each other.
    if axis is not None:
        pairs = np.zeros((5, 5))
        np.add.at(pairs, (drawn[:, :, 0].ravel(), drawn[:, :, 1].ravel()), 1)
        p, q = (np.exp(losses.log_softmax(logits))[:4] for logits in sampler.z[:2])
        assert chi_square(pairs[:4, :4], np.outer(p, q) * pairs.sum()) < DEVIATIONS


def check_expectation(gradients, hessian):
    """The mean of the outer products of rows is the Hessian, within the deviations of a mean."""
    rows = gradients.reshape(-1, len(hessian)).astype(np.float64)
    products = rows[:, :, None] * rows[:, None, :]
    bound = DEVIATIONS * products.std(0) / np.sqrt(len(rows)) + 1e-6 * np.abs(hessian).max()
    assert (np.abs(products.mean(0) - hessian) <= bound).all(), np.abs(products.mean(0) - hessian) / bound
    assert bound.max() < 0.1 * np.abs(hessian).max()
    bound = DEVIATIONS * rows.std(0) / np.sqrt(len(rows)) + 1e-6
    assert (np.abs(rows.mean(0)) <= bound).all(), "for labels from the model the mean gradient is zero"


def hessian(loss, z):
    """Of the loss of one example, by differences of differences."""
    step = 1e-4
    moves = np.eye(z.size) * step
    slopes = [losses.differences(loss, z + move) - losses.differences(loss, z - move) for move in moves]
    return np.array(slopes) / (2 * step)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("loss", ["cross-entropy", "soft-cross-entropy", "bce", "mse"])
def test_outer_products_tend_to_the_hessian(loss, dynamic, tmp_path):
    z = np.array([0.5, -1.0, 1.5, 0.2])
    sampler = Sampler(tmp_path, z, 1000, "--loss", loss, dynamic=dynamic)
    labels = np.zeros(1000, np.int64) if loss == "cross-entropy" else np.full((1000, 4), 0.25, np.float32)
    function, label = {
        # The Hessian does not depend on the label.
        "cross-entropy": (losses.cross_entropy, np.array([0])),
        "soft-cross-entropy": (losses.soft_cross_entropy, np.full((1, 4), 0.25)),
        "bce": (losses.bce, np.full((1, 4), 0.25)),
        "mse": (losses.mse, np.full((1, 4), 0.25)),
    }[loss]
    expected = hessian(lambda z: function(z[None], label), z)
    check_expectation(sampler.rows(labels), expected)


def test_normal_numbers_are_normal(tmp_path):
    """The sampled gradient of the squared error: moments, tails, and independence of neighbours."""
    sampler = Sampler(tmp_path, np.zeros(4), 5000, "--loss", "mse")
    noise = sampler.rows(np.zeros((5000, 4), np.float32), range(10)).astype(np.float64).ravel() / np.sqrt(2 / 4)
    n = noise.size
    for power, (moment, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96), 6: (15, 10170)}.items():
        assert abs((noise**power).mean() - moment) < DEVIATIONS * np.sqrt(variance / n), power
    assert abs((np.abs(noise) > 3).mean() - 0.0026998) < DEVIATIONS * np.sqrt(0.0027 / n)
    assert 4 < np.abs(noise).max() < 6.7
    for lag in (1, 2, 4, 20000):
        assert abs((noise[lag:] * noise[:-lag]).mean()) < DEVIATIONS / np.sqrt(n - lag), lag


@pytest.mark.parametrize("ignored", [-1, 2])
def test_labels_that_do_not_count_have_no_sampled_gradient(ignored, tmp_path):
    sampler = Sampler(tmp_path, np.array([0.5, -1.0, 2.0]), 50, "--loss", "cross-entropy", "--ignore-index", ignored)
    labels = np.arange(50) % 2
    labels[::3] = ignored
    rows = sampler.rows(labels, [0])[0, :, 0]
    assert not rows[::3].any()
    assert (rows[labels != ignored] < 0).any(1).all()


def test_the_seed_says_which_labels_are_drawn(tmp_path):
    sampler = Sampler(tmp_path, np.zeros(8), 200, "--loss", "cross-entropy")
    labels = np.zeros(200, np.int64)
    first, again, other = sampler.rows(labels, [3, 3, 4])
    assert np.array_equal(first, again)
    agree = (first.argmin(-1) == other.argmin(-1)).mean()
    assert abs(agree - 1 / 8) < DEVIATIONS * np.sqrt(1 / 8 * 7 / 8 / 200)
    default = sampler.training.run({"x": sampler.x, "labels": labels})[sampler.value]
    assert np.array_equal(default, sampler.rows(labels, [0])[0].reshape(default.shape))


def test_losses_that_stand_for_no_distribution(tmp_path):
    """ζ* needs none."""
    with pytest.raises(AssertionError, match="sample labels from the model's distribution, and this loss stands for none"):
        Sampler(tmp_path, np.zeros(3), 4, "--loss", "l1")
    assert not (tmp_path / "train.onnx").exists()


def test_the_gradient_is_the_plain_one(tmp_path):
    """Sampling does not touch it: with an infinite damping all around, ζ is the gradient."""
    sampler = Sampler(tmp_path, np.array([0.5, -1.0, 2.0]), 6, "--loss", "cross-entropy")
    labels = np.arange(6) % 3
    feeds = {"x": sampler.x, "labels": labels, "lambda_a": np.float32(np.inf), "lambda_g": np.float32(np.inf)}
    expected = losses.differences(lambda w: losses.cross_entropy(np.repeat(w, 6, 0), labels), sampler.z)
    assert relative_error(sampler.training.gradients(feeds)["w"], expected) < 1e-6
