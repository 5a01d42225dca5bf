"""Operators whose definition changed, in the version before and after: ONNX Runtime knows both."""

import aside
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

ROW = np.arange(-3, 3, dtype=np.float32)
IMAGE = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
CHANNELS = [np.array(values, np.float32) for values in ([1, 2, 3], [0.5, -1, 0], [0.1, 0.2, -0.3], [1, 4, 0.25])]
SCALES = np.array([1, 1, 2, 3], np.float32)
SEQUENCE = [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate([(5, 2, 3), (1, 16, 3), (1, 16, 4)])]


def node(op_type, inputs, outputs=1, **attributes):
    names = [f"in{i}" for i in range(len(inputs))]
    return helper.make_node(op_type, names, [f"out{i}" for i in range(outputs)], **attributes), inputs


def cases():
    for op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (None, 0, 1, 2, 3):
            yield f"{op_type} axis {axis}", [7, 11, 12], *node(op_type, [IMAGE], **({} if axis is None else {"axis": axis}))
        yield f"{op_type} axis -2", [11], *node(op_type, [IMAGE], axis=-2)
        yield f"{op_type} axis -1", [11], *node(op_type, [IMAGE], axis=-1)
    yield "Squeeze", [7, 12], *node("Squeeze", [IMAGE[:, None, :, :1]], axes=[1, 3])
    yield "Squeeze all", [7, 12], *node("Squeeze", [IMAGE[:1, :1]])
    yield "Unsqueeze", [7, 12], *node("Unsqueeze", [IMAGE], axes=[0, 4])
    for keep in (0, 1):
        yield f"ReduceSum {keep}", [7, 12], *node("ReduceSum", [IMAGE], axes=[1, 2], keepdims=keep)
        yield f"ReduceSum all {keep}", [7, 12], *node("ReduceSum", [IMAGE], keepdims=keep)
        yield f"ReduceMean {keep}", [7, 12], *node("ReduceMean", [IMAGE], axes=[1, 2], keepdims=keep)
    yield "Split equal", [7, 12], *node("Split", [IMAGE], 2, axis=2)
    yield "Split", [7, 12], *node("Split", [IMAGE], 3, axis=3, split=[1, 2, 3])
    yield "Slice", [7, 9], *node("Slice", [IMAGE], starts=[1, -3], ends=[3, 100], axes=[1, 3])
    yield "Slice leading", [7, 9], *node("Slice", [IMAGE], starts=[0, 1], ends=[1, -1])
    for mode in ("constant", "reflect", "edge"):
        yield f"Pad {mode}", [7, 10], *node("Pad", [IMAGE], mode=mode, pads=[0, 0, 1, 2, 0, 0, 3, 1], value=1.5)
    yield "Pad zeros", [7, 10], *node("Pad", [IMAGE.astype(np.float64)], pads=[0, 0, 1, 2, 0, 0, 3, 1])
    for bounds in ({}, {"min": -0.5}, {"max": 0.25}, {"min": -0.5, "max": 0.25}):
        yield f"Clip {bounds}", [7, 10], *node("Clip", [IMAGE], **bounds)
    yield "TopK", [7, 9], *node("TopK", [IMAGE], 2, k=2, axis=1)
    yield "Scatter", [9, 10], *node("Scatter", [IMAGE, np.array([[[[1, 0]]]]), IMAGE[:1, :1, :1, :2]], axis=3)
    yield "Gemm", [7, 9, 10], *node("Gemm", [IMAGE[0, 0], IMAGE[0, 1], ROW[:4]], alpha=0.5, beta=2.0, transB=1)
    yield "BatchNormalization", [7, 9, 13], *node("BatchNormalization", [IMAGE, *CHANNELS], epsilon=1e-2, momentum=0.8)
    yield "BatchNormalization spatial", [7], *node("BatchNormalization", [IMAGE, *CHANNELS], spatial=1)
    yield "Upsample attribute", [7, 8], *node("Upsample", [IMAGE], scales=SCALES.tolist())
    yield "Upsample linear attribute", [7], *node("Upsample", [IMAGE], scales=SCALES.tolist(), mode="linear")
    for mode in ("nearest", "linear"):
        yield f"Upsample {mode}", [9], *node("Upsample", [IMAGE, SCALES * np.float32([1, 1, 1.25, 0.7])], mode=mode)
        yield f"Resize up {mode}", [10], *node("Resize", [IMAGE, SCALES * np.float32([1, 1, 1.25, 0.7])], mode=mode)
        yield f"Resize down {mode}", [10], *node("Resize", [IMAGE, np.float32([1, 1, 0.8, 0.5])], mode=mode)
    yield "Resize both linear", [10], *node("Resize", [IMAGE, np.float32([1, 1, 0.8, 1.5])], mode="linear")
    yield "AveragePool", [7, 10], *node("AveragePool", [IMAGE], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    yield "AveragePool of what is there", [7, 10], *node("AveragePool", [IMAGE], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    yield "MaxPool", [7, 8, 10], *node("MaxPool", [IMAGE], kernel_shape=[2, 2], strides=[2, 2])
    yield "Conv", [7, 10], *node("Conv", [IMAGE, IMAGE[:, :, :2, :2]], auto_pad="SAME_UPPER")
    yield "ConvTranspose", [7, 10], *node("ConvTranspose", [IMAGE, IMAGE[:1].transpose(1, 0, 2, 3)], strides=[2, 2], output_padding=[1, 1])
    yield "LSTM", [7, 13], *node("LSTM", SEQUENCE, 3, hidden_size=4)
    yield "GRU", [7, 13], *node("GRU", [x[:, :12] if x.shape[1] == 16 else x for x in SEQUENCE], 2, hidden_size=4, linear_before_reset=1)
    yield "RNN", [7, 13], *node("RNN", [x[:, :4] if x.shape[1] == 16 else x for x in SEQUENCE], 2, hidden_size=4)
    yield "PRelu", [7, 9], *node("PRelu", [IMAGE, CHANNELS[0][:, None, None]])
    yield "Gather", [7, 11], *node("Gather", [IMAGE, np.array([[0, 2]])], axis=1)
    yield "ArgMax", [7, 11], *node("ArgMax", [IMAGE], axis=2, keepdims=0)
    yield "Cast", [7, 9], *node("Cast", [IMAGE], to=TensorProto.INT32)
    yield "OneHot", [9], *node("OneHot", [np.array([0, 2, 1]), np.array(3), ROW[:2]])
    yield "CumSum", [11], *node("CumSum", [IMAGE, np.array(2)])
    yield "DepthToSpace", [7], *node("DepthToSpace", [np.tile(IMAGE, (1, 4, 1, 1))], blocksize=2)
    yield "Flatten", [7, 9], *node("Flatten", [IMAGE], axis=2)
    yield "Max", [8, 11], *node("Max", [IMAGE, ROW])
    yield "Pow", [7, 14], *node("Pow", [IMAGE, np.float32(2)])
    yield "LeakyRelu", [6, 15], *node("LeakyRelu", [IMAGE])
    yield "RoiAlign", [10, 15], *node("RoiAlign", [IMAGE, np.float32([[0.5, 0, 4, 3], [1, 1, 5, 2.5]]), np.array([1, 0])], output_height=2, output_width=3, spatial_scale=0.75)


def model(operator, inputs, opset):
    """A model whose inputs are floats, with everything else as initializers, which declares no shape of its outputs."""
    declared = [
        helper.make_tensor_value_info(f"in{i}", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for i, x in enumerate(inputs)
    ]
    fixed = [numpy_helper.from_array(x, f"in{i}") for i, x in enumerate(inputs) if i and operator.op_type != "Conv"]
    outputs = [onnx.ValueInfoProto(name=name) for name in operator.output]
    graph = helper.make_graph([operator], "graph", declared[: len(declared) if not fixed else 1], outputs, fixed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


CASES = [(name, opset, *case) for name, opsets, *case in cases() for opset in opsets]


@pytest.mark.parametrize("name, opset, operator, inputs", CASES, ids=[f"{name} of opset {opset}" for name, opset, *_ in CASES])
def test_operator(name, opset, operator, inputs, tmp_path):
    old = model(operator, inputs, opset)
    feeds = {info.name: inputs[int(info.name[2:])] for info in old.graph.input}
    expected = onnxruntime.InferenceSession(old.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    training, refusal = aside.train(old, tmp_path)
    assert refusal is None, refusal
    assert aside.opset(training) == 17
    for got, wanted in zip(aside.run(training, list(operator.output), feeds), expected):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_broadcast_of_opset_6(op_type, axis, tmp_path):
    """ONNX Runtime has no kernels of opset 6; numpy knows what is meant."""
    x = np.random.default_rng(0).uniform(1, 2, (2, 3, 2)).astype(np.float32)
    y = x[0, 0, :] if axis is None else x[:, :, 0] if axis == 0 else x[0]
    attributes = {"broadcast": 1} if axis is None else {"broadcast": 1, "axis": axis}
    old = model(*node(op_type, [x, y], **attributes), 6)
    training, refusal = aside.train(old, tmp_path)
    assert refusal is None, refusal
    (got,) = aside.run(training, ["out0"], {"in0": x})
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}[op_type]
    np.testing.assert_allclose(got, function(x, y[:, :, None] if axis == 0 else y), rtol=1e-5)


def test_slopes_of_channels_in_opset_6(tmp_path):
    training, refusal = aside.train(model(*node("PRelu", [IMAGE, CHANNELS[1]]), 6), tmp_path)
    assert refusal is None, refusal
    (got,) = aside.run(training, ["out0"], {"in0": IMAGE})
    np.testing.assert_allclose(got, np.where(IMAGE < 0, IMAGE * CHANNELS[1][:, None, None], IMAGE), rtol=1e-6)


@pytest.mark.parametrize("opset", [6, 7, 9, 10, 11])
@pytest.mark.parametrize("masked", [False, True])
def test_dropout_drops_in_training(opset, masked, tmp_path):
    """The ratio is 0.25: of 20,000 elements, about that part is 0, and the others are 4/3 of what they were."""
    x = np.ones((100, 200), np.float32)
    training, refusal = aside.train(model(*node("Dropout", [x], 1 + masked, ratio=0.25), opset), tmp_path)
    assert refusal is None, refusal
    got, *mask = aside.run(training, ["out0", "out1"][: 1 + masked], {"in0": x})
    assert abs((got == 0).mean() - 0.25) < 0.02
    np.testing.assert_allclose(got[got != 0], 4 / 3, rtol=1e-6)
    for kept in mask:
        assert kept.dtype == (np.float32 if opset < 10 else bool)
        np.testing.assert_array_equal(kept.astype(bool), got != 0)


def test_all_that_stands_in_the_way_is_named(tmp_path):
    """Statistics of single elements, and an operator that was removed."""
    ones = np.ones((3, 4, 6), np.float32)
    old = model(*node("BatchNormalization", [IMAGE, ones, ones, ones, ones], spatial=0), 7)
    old.graph.node.append(helper.make_node("ImageScaler", ["out0"], ["scaled"], name="scaler"))
    training, refusal = aside.train(old, tmp_path)
    assert training is None
    assert "2 operators of opset 7 cannot be written in those of opset 17" in refusal
    assert "BatchNormalization 'out0': statistics of single elements" in refusal
    assert "ImageScaler 'scaler': it was removed" in refusal


def test_opset_5_is_refused(tmp_path):
    training, refusal = aside.train(model(*node("Relu", [ROW]), 5), tmp_path)
    assert training is None and "opset 6 or later" in refusal


def test_initializers_of_old_files_are_constants(tmp_path):
    """Before IR version 4 every initializer is listed as an input; the shape of a Reshape is one all the same."""
    old = model(*node("Reshape", [IMAGE, np.array([2, -1])]), 9)
    old.ir_version = 3
    old.graph.input.append(helper.make_tensor_value_info("in1", TensorProto.INT64, (2,)))
    training, refusal = aside.train(old, tmp_path)
    assert refusal is None, refusal
    assert "in1" not in [info.name for info in training.graph.input]
    (got,) = aside.run(training, ["out0"], {"in0": IMAGE})
    np.testing.assert_array_equal(got, IMAGE.reshape(2, -1))
