"""The models of old opsets that the onnx package has, with the outputs that it recorded."""

import os
from pathlib import Path

import aside
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

DATA = Path(os.environ["ISAAC_ONNX_DATA"])
KINDS = ["node", "simple", "pytorch-operator", "pytorch-converted"]
# What test_operators.py and the tests of gradients look at, what is random, and what needs a locale of the machine.
ELSEWHERE = {"Dropout", "Gradient", "Bernoulli", "RandomUniformLike", "StringNormalizer"}
# ONNX Runtime has no kernel of these types, and does something else with MaxUnpool's output shape, whatever the opset.
RUNTIME = {"test_max_int16", "test_max_uint16", "test_min_int16", "test_min_uint16", "test_pow_types_float32_uint32", "test_pow_types_float32_uint64", "test_maxunpool_export_with_output_shape"}
REFUSED = {
    "test_loop11": "Loop 'res_y': the definition of Unsqueeze 'slice_start' in its body changed",
    "test_scan_sum": "Scan 'y': its first axis was the batch before opset 9",
}


def models():
    for path in sorted(path for kind in KINDS for path in (DATA / kind).glob("*/model.onnx")):
        model = onnx.load(path)
        operators = {node.op_type for node in model.graph.node}
        is_old = aside.opset(model) and 6 <= aside.opset(model) < 16
        if is_old and not operators & ELSEWHERE and path.parent.name not in RUNTIME:
            yield path.parent, model


def read(path, info):
    """A recorded value: a tensor, a sequence of tensors, or an optional."""
    kind = info.type.WhichOneof("value")
    if kind == "tensor_type":
        return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    return numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))


MODELS = list(models())


def test_the_package_has_old_models():
    assert len(MODELS) > 600


@pytest.mark.parametrize("folder, model", MODELS, ids=[folder.name for folder, _ in MODELS])
def test_model(folder, model, tmp_path):
    training, refusal = aside.train(model, tmp_path)
    if folder.name in REFUSED:
        assert REFUSED[folder.name] in refusal
        return
    assert refusal is None, refusal
    assert aside.opset(training) == 17
    data = folder / "test_data_set_0"
    defaults = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in defaults]
    feeds = {info.name: read(data / f"input_{i}.pb", info) for i, info in enumerate(inputs)}
    names = [info.name for info in model.graph.output]
    for i, got in enumerate(aside.run(training, names, feeds)):
        expected = read(data / f"output_{i}.pb", model.graph.output[i])
        if not isinstance(expected, list):
            got, expected = [got], [expected]
        assert len(got) == len(expected)
        for one, other in zip(got, expected):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
