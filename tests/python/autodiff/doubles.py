"""onnx's reference evaluator, in double precision throughout.

Some of its operators round to float on the way, whatever they are fed. Here they do not.
"""

import importlib
import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_erf


class NumPy:
    """NumPy whose float32 is float64."""

    float32 = np.float64

    def __getattr__(self, name):
        return getattr(np, name)


for name in ("causal_conv_with_state", "grid_sample", "linear_attention"):
    importlib.import_module(f"onnx.reference.ops.op_{name}").np = NumPy()
op_erf.Erf._run = lambda self, x: (np.vectorize(math.erf, otypes=["d"])(x).astype(x.dtype),)


def run(model, outputs, feeds):
    return ReferenceEvaluator(model).run(outputs, widened(feeds))


def widened(feeds):
    """Arrays of floats as doubles; others as they are."""
    return {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in feeds.items()}


def in_double(model):
    """The model with doubles in the place of floats."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for info in [*graph.input, *graph.output, *graph.value_info]:
        kind = info.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT:
            kind.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        widen(tensor)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
        if attribute.type == onnx.AttributeProto.TENSOR:
            widen(attribute.t)
    return copy


def widen(tensor):
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
