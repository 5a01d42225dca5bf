"""Each loss and its gradient with respect to the prediction, against NumPy in double precision."""

import losses
import numpy as np
import onnx
import pytest
from graphs import Training, make, relative_error
from net import Net
from onnx import TensorProto

FLOAT, DOUBLE, HALF = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16
TYPES = {FLOAT: np.float32, DOUBLE: np.float64, HALF: np.float16}
# Relative to the largest element. Central differences with step 1e-5 are good for 1e-9; float16 rounds by up to 5e-4.
GRADIENT = {FLOAT: 1e-6, DOUBLE: 1e-8, HALF: 6e-4}
VALUE = {FLOAT: 1e-6, DOUBLE: 1e-12, HALF: 1e-6}
SHAPES = [(5, 4), (3, 4, 6), (3, 4, 2, 5)]


def prediction(z, element, is_dynamic):
    """A model that looks each element of its prediction up in a parameter: their gradients are the same numbers. Dynamic are all of its
    sizes, or that of the "batch"."""
    net = Net(opset=17, element=DOUBLE if element == DOUBLE else FLOAT)
    places = np.arange(z.size).reshape(z.shape)
    sizes = [f"d{axis}" for axis in range(1, z.ndim)] if is_dynamic is True else z.shape[1:]
    shape = ["N" if is_dynamic else len(z), *sizes]
    net.data("places", shape, places, element=TensorProto.INT64)
    net.constant("w", z.astype(np.float64 if element == DOUBLE else np.float32).ravel())
    net.op("Gather", "w", "places", into="w.z")
    net.op("Cast", "w.z", into="z", to=element)
    net.output("z", shape, element)
    return net


class Case:
    """Random predictions, rounded to the element type, and their training graph."""

    def __init__(self, folder, shape, *arguments, element=FLOAT, is_dynamic=False, scale=2.0, seed=0):
        self.random, self.element = np.random.default_rng(seed), element
        self.z = self.rounded(scale * self.random.standard_normal(shape))
        net = prediction(self.z, element, is_dynamic)
        self.training = Training(make(net.model(), folder, *arguments, "--optimizer", "none", "--method", "gradient"))
        self.feeds = dict(net.feeds)

    def rounded(self, array):
        """The nearest numbers of the element type, in double precision."""
        return array.astype(TYPES[self.element]).astype(np.float64)

    def classes(self, axis, ignored=None):
        """Labels of which about a third is `ignored`, if that is given."""
        shape = [size for at, size in enumerate(self.z.shape) if at != axis % self.z.ndim]
        labels = self.random.integers(self.z.shape[axis], size=shape)
        if ignored is not None:
            labels[self.random.random(shape) < 0.35] = ignored
            labels.flat[0], labels.flat[-1] = ignored, 0
        return labels

    def weights(self):
        return self.rounded(self.random.uniform(0.2, 3, len(self.z)))

    def check(self, loss, labels, weights=None):
        """`loss` is a function of prediction and labels."""
        feeds = {**self.feeds, "labels": labels if labels.dtype == np.int64 else labels.astype(TYPES[self.element])}
        if weights is not None:
            feeds["example_weights"] = weights.astype(np.float64 if self.element == DOUBLE else np.float32)
        assert self.training.map["labels"] == list(feeds)[1:]
        value = self.training.run(feeds)["loss"]
        assert value == pytest.approx(loss(self.z, labels), rel=VALUE[self.element])
        expected = losses.differences(lambda z: loss(z, labels), self.z)
        gradient = self.training.gradients(feeds)["w"].reshape(self.z.shape)
        assert relative_error(gradient, expected) < GRADIENT[self.element]


def axes(shape):
    """Along which the classes can lie; None where the default is told nothing."""
    return [*([None] if len(shape) < 4 else []), *range(1, len(shape)), -1]


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("shape, axis", [(shape, axis) for shape in SHAPES for axis in axes(shape)])
def test_cross_entropy(shape, axis, is_dynamic, element, tmp_path):
    """With and without labels that do not count, and weights of examples."""
    told = () if axis is None else ("--class-axis", axis)
    axis = -1 if axis is None else axis
    for ignored, is_weighted in [(None, False), (-100, False), (1, True), (None, True)]:
        more = [*(("--ignore-index", ignored) if ignored is not None else ()), *["--example-weights"] * is_weighted]
        case = Case(
            tmp_path, shape, "--loss", "cross-entropy", *told, *more, element=element, is_dynamic=is_dynamic
        )
        weights = case.weights() if is_weighted else None
        case.check(
            lambda z, t: losses.cross_entropy(z, t, axis, ignored, weights), case.classes(axis, ignored), weights
        )


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("shape, axis", [(shape, axis) for shape in SHAPES for axis in axes(shape)[-2:]])
def test_soft_cross_entropy(shape, axis, is_weighted, is_dynamic, element, tmp_path):
    """Labels whose sum is not one are not normalized."""
    arguments = ["--loss", "soft-cross-entropy", "--class-axis", axis, *["--example-weights"] * is_weighted]
    case = Case(tmp_path, shape, *arguments, element=element, is_dynamic=is_dynamic)
    weights = case.weights() if is_weighted else None
    t = case.rounded(case.random.uniform(0, 0.8, shape))
    case.check(lambda z, t: losses.soft_cross_entropy(z, t, axis, weights), t, weights)


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("shape", [(7,), *SHAPES])
@pytest.mark.parametrize("loss", ["mse", "l1", "bce"])
def test_elementwise(loss, shape, is_weighted, is_dynamic, element, tmp_path):
    case = Case(
        tmp_path, shape, "--loss", loss, *["--example-weights"] * is_weighted, element=element, is_dynamic=is_dynamic
    )
    weights = case.weights() if is_weighted else None
    t = case.rounded(case.random.random(shape) if loss == "bce" else case.random.standard_normal(shape))
    case.check(lambda z, t: getattr(losses, loss)(z, t, weights), t, weights)


@pytest.mark.parametrize("loss", ["cross-entropy", "soft-cross-entropy", "bce"])
def test_large_logits(loss, tmp_path):
    """Nothing overflows, and where the prediction is right and sure, the loss is zero."""
    case = Case(tmp_path, (6, 4), "--loss", loss, scale=300)
    labels = case.classes(1) if loss == "cross-entropy" else case.random.dirichlet(np.ones(4), 6)
    t = labels if loss == "cross-entropy" else case.rounded(labels)
    case.check(lambda z, t: getattr(losses, loss.replace("-", "_"))(z, t), t)
    sure = case.z.argmax(1) if loss == "cross-entropy" else np.eye(4)[case.z.argmax(1)]
    sure = (case.z > 0).astype(float) if loss == "bce" else sure
    feeds = {**case.feeds, "labels": sure if sure.dtype == np.int64 else sure.astype(np.float32)}
    gap = np.sort(case.z, 1)[:, -1] - np.sort(case.z, 1)[:, -2]
    assert loss == "bce" or gap.min() > 20
    assert case.training.run(feeds)["loss"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("loss", ["ignored", "weighted", "both", "mse"])
def test_what_counts_for_nothing_teaches_nothing(loss, element, tmp_path):
    """A batch of padding is no reason for NaN: loss and gradients are zero."""
    weighted, ignored = ["--example-weights"], ["--ignore-index", -1]
    more = {"ignored": ignored, "weighted": weighted, "both": [*weighted, *ignored], "mse": weighted}[loss]
    case = Case(tmp_path, (6, 4), "--loss", "mse" if loss == "mse" else "cross-entropy", *more, element=element)
    feeds = dict(case.feeds)
    feeds["labels"] = case.z.astype(TYPES[element]) + 1 if loss == "mse" else np.full(6, 1 if loss == "weighted" else -1)
    if loss != "ignored":
        of_examples = np.ones if loss == "both" else np.zeros
        feeds["example_weights"] = of_examples(6, np.float64 if element == DOUBLE else np.float32)
    assert case.training.run(feeds)["loss"] == 0
    assert not case.training.gradients(feeds)["w"].any()


@pytest.mark.parametrize("ignored", [[], ["--ignore-index", -2]])
@pytest.mark.parametrize("label", [-5, -1, 4])
def test_a_label_that_is_no_class_is_an_error(label, ignored, tmp_path):
    """A negative one too: in ONNX, indices below zero count from the end."""
    case = Case(tmp_path, (6, 4), "--loss", "cross-entropy", *ignored)
    labels = np.array([0, 1, 2, label, -2 if ignored else 1, 3])
    with pytest.raises(Exception, match="labels_are_from_0_to_below_the_number_of_classes"):
        case.training.run({**case.feeds, "labels": labels})


# By loss: shapes of predictions, and of labels that would be compared with each of several.
MISFITS = {
    "cross-entropy": [((6, 4), (1,)), ((6, 4), (3,)), ((2, 6, 4), (2, 1)), ((2, 6, 4), (1, 6)), ((4, 2), (1,))],
    **dict.fromkeys(
        ["soft-cross-entropy", "mse", "l1", "bce"],
        [((6, 4), (1, 4)), ((6, 4), (6, 1)), ((6, 1), (1, 1)), ((6, 1), (6,)), ((6, 1), (1, 6)), ((2, 3, 4), (3, 2, 4))],
    ),
}


@pytest.mark.parametrize("is_dynamic", [False, True, "batch"])
@pytest.mark.parametrize("loss, shape, of_labels", [(loss, *shapes) for loss in MISFITS for shapes in MISFITS[loss]])
def test_labels_of_another_shape_are_an_error(loss, shape, of_labels, is_dynamic, tmp_path):
    case = Case(tmp_path, shape, "--loss", loss, is_dynamic=is_dynamic)
    element = np.int64 if loss == "cross-entropy" else np.float32
    case.training.run({**case.feeds, "labels": np.zeros(shape[:-1] if loss == "cross-entropy" else shape, element)})
    with pytest.raises(Exception, match="labels_have_the_sizes_of_the_prediction|invalid dimensions|Invalid rank"):
        case.training.run({**case.feeds, "labels": np.zeros(of_labels, element)})


@pytest.mark.parametrize("ignored", [[], ["--ignore-index", -1]])
@pytest.mark.parametrize("is_dynamic", [False, True, "batch"])
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_weights_of_other_examples_are_an_error(loss, is_dynamic, ignored, tmp_path):
    more = ignored if loss == "cross-entropy" else []
    case = Case(tmp_path, (6, 4), "--loss", loss, "--example-weights", *more, is_dynamic=is_dynamic)
    feeds = {**case.feeds, "labels": case.classes(1) if loss == "cross-entropy" else np.zeros((6, 4), np.float32)}
    case.training.run({**feeds, "example_weights": np.ones(6, np.float32)})
    with pytest.raises(Exception, match="example_weights_have_the_sizes_of_the_prediction|invalid dimensions"):
        case.training.run({**feeds, "example_weights": np.ones(1, np.float32)})


@pytest.mark.parametrize("loss", ["mse", "bce", "l1"])
def test_labels_of_a_prediction_whose_axes_are_not_known(loss, tmp_path):
    net = Net(opset=17)
    net.data("x", [5, 6])
    net.weight("w", 6, 4)
    net.data("sizes", ["rank"], np.array([5, 4]), element=TensorProto.INT64)
    net.op("Reshape", net.op("MatMul", "x", "w", into="y"), "sizes", into="z")
    net.outputs.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    training = Training(make(net.model(), tmp_path, "--loss", loss, "--optimizer", "none", "--method", "gradient"))
    training.run({**net.feeds, "labels": np.zeros((5, 4), np.float32)})
    for shape in [(1, 4), (5, 1), (4,), (4, 5), (1, 5, 4), ()]:
        with pytest.raises(Exception, match="labels_have_the_sizes_of_the_prediction|Equal|broadcast"):
            training.run({**net.feeds, "labels": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("shape", [[], [1]])
def test_loss_that_the_model_has(shape, element, tmp_path):
    """The mean of log cosh(w), whose gradient is tanh(w) over the number of elements."""
    net = Net(opset=17, element=element)
    w = net.normal(3, 4)
    net.data("scale", shape, np.array(1.5, w.dtype).reshape(shape))
    net.constant("w", w)
    net.op("ReduceLogSumExp", net.op("Concat", *halves(net), into="both", axis=0), into="each", axes=[0], keepdims=0)
    net.op("ReduceMean", "each", into="mean", keepdims=0)
    net.op("Mul", "mean", "scale", into="cost")
    net.output("cost", shape)
    net.output("each", [3, 4])
    training = Training(make(net.model(), tmp_path, "--loss-output", "cost", "--optimizer", "none"))
    assert (training.map["loss"], training.map["labels"], training.map["data"]) == ("cost", [], ["scale"])
    outputs, w = training.run(net.feeds), w.astype(np.float64)
    tolerance = {FLOAT: 1e-6, DOUBLE: 1e-14, HALF: 2e-3}[element]
    assert outputs["cost"].shape == tuple(shape)
    assert outputs["cost"].item() == pytest.approx(1.5 * np.logaddexp(w, -w).mean(), rel=tolerance)
    assert relative_error(outputs["w.gradient"], 1.5 * np.tanh(w) / w.size) < tolerance


def test_cross_entropy_of_bfloat16(tmp_path):
    """The prediction's numbers are exact in eight bits; its gradient is rounded to as many, each element by up to 2⁻⁸ of itself."""
    random = np.random.default_rng(2)
    z, labels = random.integers(-32, 33, (5, 4)) / 8, random.integers(4, size=5)
    net = prediction(z, TensorProto.BFLOAT16, is_dynamic=True)
    training = Training(make(net.model(), tmp_path, "--loss", "cross-entropy", "--optimizer", "none", "--method", "gradient"))
    [entry] = training.map["parameters"]
    loss, gradient = training.session.run([training.map["loss"], entry["gradient"]], {**net.feeds, "labels": labels})
    assert loss == pytest.approx(losses.cross_entropy(z, labels), rel=1e-6)
    expected = losses.differences(lambda z: losses.cross_entropy(z, labels), z)
    np.testing.assert_allclose(gradient.reshape(z.shape), expected, rtol=2**-8, atol=1e-6)


def halves(net):
    """w and -w, each with a new first axis."""
    net.constant("front", [0])
    net.op("Unsqueeze", "w", "front", into="plus")
    return "plus", net.op("Neg", "plus", into="minus")
