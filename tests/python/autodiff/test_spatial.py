"""Gradients of operators on images, beyond the node tests: groups, strides, padding, sizes that are not known, old and new opsets.

Most operators here are linear in each input over a step: differences of the runtime's own forward pass are exact up to rounding. The others are
compared with differences of a function in double precision.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
import suite
from onnx import TensorProto, helper, numpy_helper



def session(proto):
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def values(shape, seed=0):
    """Distinct numbers, at least a tenth apart, around zero."""
    count = int(np.prod(shape))
    order = np.random.default_rng(seed).permutation(count)
    return ((order - count / 2 + 0.3) / 10).astype(np.float32).reshape(shape)


# Whether sizes are known, and the opset. Before opset 13 the sum over repeated axes needs known sizes.
KNOWN_SINCE = [(True, 12), (True, 18), (False, 13), (False, 18)]


class Chain:
    """Nodes from x and parameters to y, a weighted sum of which is differentiated."""

    def __init__(self, nodes, inputs, opset, constants=None, known=True, step=0.02):
        self.inputs, self.step = inputs, step
        info = helper.make_tensor_value_info
        shape = {name: value.shape if known or name != "x" else [f"{name}{i}" for i in range(value.ndim)] for name, value in inputs.items()}
        graph_inputs = [info(name, TensorProto.FLOAT, shape[name]) for name in inputs]
        initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
        graph = helper.make_graph(nodes, "chain", graph_inputs, [info("y", TensorProto.FLOAT, None)], initializers)
        imports = [helper.make_opsetid("", opset)]
        self.forward = helper.make_model(graph, opset_imports=imports, ir_version=8)

    def gradients(self, folder, weights):
        case = suite.Case("chain", "", self.forward, self.inputs, list(self.inputs), self.forward.graph.output[0])
        path, refusal = suite.lower(suite.with_gradient(case, weights), folder)
        assert refusal is None, refusal
        run = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        read = {info.name for info in run.get_inputs()}
        return run.run(None, {name: value for name, value in self.inputs.items() if name in read})

    def check(self, folder, tolerance=2e-3, function=None):
        """Compares with differences: of `function`, whose arguments are the inputs, or else of the runtime's forward pass."""
        run = session(self.forward)
        result = lambda feeds: run.run(["y"], feeds)[0].astype(np.float64)
        weights = np.random.default_rng(1).standard_normal(result(self.inputs).shape).astype(np.float32)
        gradients, inputs, step = self.gradients(folder, weights), self.inputs, self.step
        if function:
            inputs, step = {name: value.astype(np.float64) for name, value in inputs.items()}, 1e-5
            np.testing.assert_allclose(function(**inputs), result(self.inputs), rtol=1e-4, atol=1e-5)
            result = lambda feeds: function(**feeds)
        for (name, value), got in zip(inputs.items(), gradients):
            expected = np.zeros_like(value)
            for index in np.ndindex(value.shape):
                moved = np.zeros_like(value)
                moved[index] = step
                right, left = (result({**inputs, name: v}) for v in (value + moved, value - moved))
                expected[index] = ((right - left) * weights).sum() / (2 * step)
            assert got.shape == value.shape
            assert np.abs(expected).max() > 1e-3
            error = np.abs(got - expected).max() / np.abs(expected).max()
            assert error < tolerance, f"{name}: {error}"


def one(operator, feeds, opset, constants=None, known=True, outputs=("y",), step=0.02, **attributes):
    node = helper.make_node(operator, [*feeds, *(constants or {})], list(outputs), **attributes)
    return Chain([node], feeds, opset, constants, known, step)


POOLS = {
    "overlapping": {"kernel_shape": [3, 2], "strides": [2, 1]},
    "padded": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 2]},
    "apart": {"kernel_shape": [2, 2], "strides": [3, 3]},
    "same_upper": {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "same_lower": {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER"},
    "valid": {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "VALID"},
}
CEIL = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1}
DILATED = {"kernel_shape": [2, 3], "dilations": [2, 2], "strides": [2, 1], "pads": [1, 1, 0, 1]}


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("pool", [*POOLS.values(), CEIL, DILATED], ids=[*POOLS, "ceil", "dilated"])
def test_max_pool(pool, opset, tmp_path):
    one("MaxPool", {"x": values((2, 2, 6, 5))}, opset, **pool).check(tmp_path)


@pytest.mark.parametrize("opset", [13, 17])
def test_max_pool_of_unknown_sizes_in_ceil_mode(opset, tmp_path):
    chain = one("MaxPool", {"x": values((2, 2, 6, 5))}, opset, known=False, **CEIL)
    if opset >= 16:
        chain.check(tmp_path)
        return
    with pytest.raises(AssertionError, match="needs opset 16"):
        chain.check(tmp_path)


def test_average_pool_whose_counts_depend_on_unknown_sizes(tmp_path):
    chain = one("AveragePool", {"x": values((2, 2, 6, 5))}, 17, known=False, **POOLS["padded"])
    with pytest.raises(AssertionError, match="depends on sizes"):
        chain.check(tmp_path)


@pytest.mark.parametrize("storage_order", [0, 1])
def test_max_pool_that_tells_its_indices(storage_order, tmp_path):
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "storage_order": storage_order}
    one("MaxPool", {"x": values((2, 2, 7, 5))}, 17, outputs=("y", "places"), **pool).check(tmp_path)


@pytest.mark.parametrize("opset", [12, 17])
def test_the_first_of_equal_elements_gets_the_gradient(opset, tmp_path):
    chain = one("MaxPool", {"x": np.zeros((1, 1, 4, 4), np.float32)}, opset, kernel_shape=[2, 2], strides=[2, 2])
    (gradient,) = chain.gradients(tmp_path, np.full((1, 1, 2, 2), 3.0, np.float32))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 3
    np.testing.assert_array_equal(gradient[0, 0], expected)


@pytest.mark.parametrize("known, opset", KNOWN_SINCE)
@pytest.mark.parametrize("shape, kernel", [((2, 3, 9), [3]), ((1, 2, 5, 4, 5), [2, 2, 3])], ids=["1-D", "3-D"])
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_pools_over_one_and_three_axes(operator, shape, kernel, known, opset, tmp_path):
    strides = [2] * len(kernel)
    one(operator, {"x": values(shape)}, opset, known=known, kernel_shape=kernel, strides=strides).check(tmp_path)


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize("pool", [*POOLS.values(), CEIL], ids=[*POOLS, "ceil"])
def test_average_pool(pool, count_include_pad, tmp_path):
    one("AveragePool", {"x": values((2, 2, 6, 5))}, 17, count_include_pad=count_include_pad, **pool).check(tmp_path)


@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_dilated_average_pool(count_include_pad, tmp_path):
    one("AveragePool", {"x": values((2, 2, 6, 6))}, 19, count_include_pad=count_include_pad, **DILATED).check(tmp_path)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_lp_pool(pool, power, tmp_path):
    one("LpPool", {"x": values((2, 2, 6, 5))}, 17, p=power, **pool).check(tmp_path, 2e-2)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_global_lp_pool(power, tmp_path):
    norm = lambda x: (np.abs(x) ** power).sum(axis=(2, 3), keepdims=True) ** (1 / power)
    one("GlobalLpPool", {"x": values((2, 3, 4, 3))}, 17, p=power).check(tmp_path, 1e-5, norm)


CONVOLUTIONS = {
    "plain": {},
    "strided": {"strides": [2, 3]},
    "padded": {"strides": [2, 2], "pads": [1, 0, 2, 1]},
    "dilated": {"strides": [1, 2], "dilations": [2, 1], "pads": [0, 1, 1, 1]},
}
# Those of the first set that a size which is not known leaves open.
SAME = {"upper": {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, "lower": {"auto_pad": "SAME_LOWER"}}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("channels, group", [(4, 1), (9, 1), (4, 2), (4, 4)])
@pytest.mark.parametrize("window", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_conv(window, channels, group, known, tmp_path):
    feeds = {"x": values((2, channels, 7, 6)), "w": values((8, channels // group, 3, 2), 1), "b": values((8,), 2)}
    one("Conv", feeds, 17, known=known, step=1, group=group, **window).check(tmp_path, 1e-4)


@pytest.mark.parametrize("channels, group", [(4, 1), (9, 1), (4, 4)])
@pytest.mark.parametrize("window", SAME.values(), ids=SAME)
def test_conv_with_padding_by_size(window, channels, group, tmp_path):
    feeds = {"x": values((2, channels, 7, 6)), "w": values((4, channels // group, 3, 2), 1)}
    one("Conv", feeds, 17, step=1, group=group, **window).check(tmp_path, 1e-4)


@pytest.mark.parametrize("shape, kernel", [((2, 4, 9), (3,)), ((2, 4, 4, 3, 5), (2, 2, 3))], ids=["1-D", "3-D"])
def test_depthwise_conv_over_one_and_three_axes(shape, kernel, tmp_path):
    feeds = {"x": values(shape), "w": values((4, 1, *kernel), 1)}
    one("Conv", feeds, 12, group=4, strides=[2] * len(kernel)).check(tmp_path, 1e-4)


@pytest.mark.parametrize(
    "shape, kernel",
    [((2, 9, 9), (3,)), ((2, 9, 4, 3, 5), (2, 2, 3)), ((2, 9, 4, 5), (1, 1)), ((1, 8, 9, 9), (9, 9))],
    ids=["1-D", "3-D", "one-element", "more-elements-than-products"],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_with_many_channels(shape, kernel, stride, tmp_path):
    feeds = {"x": values(shape), "w": values((3, shape[1], *kernel), 1)}
    one("Conv", feeds, 17, step=1, strides=[stride] * len(kernel)).check(tmp_path, 1e-4)


# Windows that move by one element.
MOVED_BY_ONE = {
    "plain": {},
    "padded": {"pads": [2, 0, 1, 1]},
    "dilated": {"dilations": [2, 3], "pads": [1, 2, 3, 0]},
    "same": {"auto_pad": "SAME_LOWER"},
    # A window that sees nothing but padding.
    "far": {"pads": [3, 1, 0, 2]},
}


@pytest.mark.parametrize("sizes, kernel, is_wide", [((7, 9), (3, 2), False), ((8, 8), (3, 2), True), ((5, 4), (1, 1), False)])
@pytest.mark.parametrize("window", MOVED_BY_ONE.values(), ids=MOVED_BY_ONE)
def test_conv_over_small_images(window, sizes, kernel, is_wide, tmp_path):
    """Their gradient is a sum of products, whatever the batch, and that of wide ones a transposed convolution."""
    if kernel == (1, 1) and "pads" in window:
        window = {"pads": [1, 1, 1, 1]}
    feeds = {"x": values((3, 9, *sizes)), "w": values((5, 9, *kernel), 1)}
    chain = one("Conv", feeds, 17, step=1, **window)
    chain.forward.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    chain.check(tmp_path, 1e-4)
    operators = [node.op_type for path in tmp_path.iterdir() for node in onnx.load(path).graph.node]
    is_far = window.get("pads", [0])[0] >= kernel[0]
    assert ("ConvTranspose" in operators) == (is_wide or is_far)
    assert ("Gemm" in operators) != (is_wide or is_far)


TRANSPOSED = CONVOLUTIONS | SAME | {
    "more": {"strides": [3, 2], "output_padding": [2, 1]},
    "sized": {"strides": [2, 2], "output_shape": [8, 7]},
    "sized_upper": {"strides": [2, 2], "output_shape": [8, 7], "auto_pad": "SAME_UPPER"},
    "larger": {"strides": [2, 2], "output_shape": [10, 8]},
}


@pytest.mark.parametrize("channels, group", [(6, 1), (9, 1), (6, 2)])
@pytest.mark.parametrize("window", TRANSPOSED.values(), ids=TRANSPOSED)
def test_conv_transpose(window, channels, group, tmp_path):
    feeds = {"x": values((2, 4, 4, 3)), "w": values((4, channels // group, 3, 3), 1), "b": values((channels,), 2)}
    one("ConvTranspose", feeds, 17, group=group, **window).check(tmp_path)


@pytest.mark.parametrize("channels", [3, 9])
@pytest.mark.parametrize("window", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_conv_transpose_of_unknown_sizes(window, channels, tmp_path):
    feeds = {"x": values((2, 4, 4, 3)), "w": values((4, channels, 3, 3), 1)}
    one("ConvTranspose", feeds, 13, known=False, **window).check(tmp_path)


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 3, 2)])
def test_group_normalization(shape, opset, tmp_path):
    """Scale and bias: one number for each group in opset 18, for each channel in opset 21."""
    count = 3 if opset < 21 else 6
    feeds = {"x": values(shape), "scale": values((count,), 1), "bias": values((count,), 2)}

    def normalized(x, scale, bias):
        rows = x.reshape(2, 3, -1)
        unit = (rows - rows.mean(axis=2, keepdims=True)) / np.sqrt(rows.var(axis=2, keepdims=True) + 0.1)
        scale, bias = (np.repeat(each, 6 // count).reshape(6, *[1] * (x.ndim - 2)) for each in (scale, bias))
        return unit.reshape(x.shape) * scale + bias

    one("GroupNormalization", feeds, opset, num_groups=3, epsilon=0.1).check(tmp_path, 1e-5, normalized)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("power", [1, 2])
def test_lp_normalization(power, axis, tmp_path):
    unit = lambda x: x / np.linalg.norm(x, power, axis, keepdims=True)
    one("LpNormalization", {"x": values((4, 5))}, 13, p=power, axis=axis).check(tmp_path, 1e-5, unit)


def test_lp_normalization_of_zeros(tmp_path):
    chain = one("LpNormalization", {"x": np.zeros((2, 3), np.float32)}, 13)
    (gradient,) = chain.gradients(tmp_path, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


@pytest.mark.parametrize("axes", [[0, 2, 3], [1]])
def test_mean_variance_normalization(axes, tmp_path):
    unit = lambda x: (x - x.mean(axis=tuple(axes), keepdims=True)) / x.std(axis=tuple(axes), keepdims=True)
    one("MeanVarianceNormalization", {"x": values((2, 3, 2, 3))}, 13, axes=axes).check(tmp_path, 1e-5, unit)


# ONNX Runtime takes odd sizes only.
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_lrn(size, tmp_path):
    attributes = {"size": size, "alpha": 0.7, "beta": 0.6, "bias": 1.5}
    one("LRN", {"x": values((2, 5, 2, 2))}, 13, step=0.01, **attributes).check(tmp_path)


@pytest.mark.parametrize("opset", [12, 15])
def test_batch_normalization_in_inference(opset, tmp_path):
    names = ["scale", "bias", "mean", "variance"]
    feeds = {"x": values((2, 3, 2, 2))} | {name: values((3,), seed) for seed, name in enumerate(names)}
    feeds["variance"] = np.array([0.7, 1.5, 3.1], np.float32)
    one("BatchNormalization", feeds, opset, step=0.01).check(tmp_path)


PADS = {"around": [0, 0, 2, 1, 0, 0, 1, 2], "front": [0, 1, 3, 0, 0, 0, 0, 0]}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("pads", PADS.values(), ids=PADS)
@pytest.mark.parametrize("mode, opset", [("constant", 13), ("edge", 13), ("reflect", 17), ("wrap", 19)])
def test_pad(mode, opset, pads, known, tmp_path):
    one("Pad", {"x": values((2, 3, 4, 5))}, opset, {"pads": np.array(pads)}, known, mode=mode).check(tmp_path)


@pytest.mark.parametrize("opset", [13, 18])
def test_negative_pads_and_the_constant(opset, tmp_path):
    nodes = [helper.make_node("Pad", ["x", "pads", "value"], ["y"])]
    constants = {"pads": np.array([1, -2, 0, 1]), "value": np.array(0.5, np.float32)}
    Chain(nodes, {"x": values((3, 5))}, opset, constants).check(tmp_path)


RESIZES = {
    "nearest": {"mode": "nearest"},
    "nearest_ceil": {"mode": "nearest", "nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"},
    "linear": {"mode": "linear"},
    "linear_corners": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    "linear_torch": {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    "cubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
    "cubic_inside": {"mode": "cubic", "exclude_outside": 1},
}


@pytest.mark.parametrize("known, opset", KNOWN_SINCE)
@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("resize", RESIZES.values(), ids=RESIZES)
def test_resize(resize, by, known, opset, tmp_path):
    nothing = np.zeros(0, np.float32)
    constants = {"region": nothing, "scales": np.array([1, 1, 1.6, 0.5], np.float32)}
    if by == "sizes":
        constants = {"region": nothing, "scales": nothing, "sizes": np.array([1, 2, 7, 3])}
    one("Resize", {"x": values((1, 2, 4, 5))}, opset, constants, known, **resize).check(tmp_path)


def test_resize_of_a_region(tmp_path):
    constants = {"region": np.array([0, 0, 0.3, -0.2, 1, 1, 0.9, 0.8], np.float32), "scales": np.zeros(0, np.float32)}
    constants["sizes"] = np.array([1, 2, 5, 4])
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0}
    one("Resize", {"x": values((1, 2, 4, 5))}, 13, constants, mode="linear", **attributes).check(tmp_path)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode, tmp_path):
    one("DepthToSpace", {"x": values((2, 8, 2, 3))}, 13, mode=mode, blocksize=2).check(tmp_path)


@pytest.mark.parametrize("known, opset", KNOWN_SINCE)
def test_network(known, opset, tmp_path):
    """Everything that a small convolutional network is made of, one after the other."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "variance"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "w2"], ["e"], group=4, strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("AveragePool", ["e"], ["f"], kernel_shape=[2, 2]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "w3", "b3"], ["y"], transB=1),
    ]
    feeds = {
        "x": values((2, 2, 8, 8)) / 4,
        "w1": values((4, 2, 3, 3), 1) / 4,
        "scale": np.array([0.5, -1.2, 0.8, 1.1], np.float32),
        "bias": values((4,), 2),
        "w2": values((4, 1, 3, 3), 3),
        "w3": values((3, 4), 4),
        "b3": values((3,), 5),
    }
    statistics = {"mean": np.array([0.1, -0.2, 0.3, 0.0], np.float32), "variance": np.array([0.5, 1, 2, 1.5], np.float32)}
    Chain(nodes, feeds, opset, statistics, known, step=2e-3).check(tmp_path)
