"""Models in the real ONNX Runtime."""

import os

import numpy as np
import onnx
import onnxruntime
from onnx import helper

LEVELS = {
    "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session(model, level="disable", optimized=None):
    """A session that knows the operator; `optimized` is where it writes the graph that it runs."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(os.environ["ISAAC_LIBRARY"])
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # failures are reported as exceptions already
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model, feeds, wanted=(), level="disable"):
    """Inputs, outputs and the values in `wanted`, by name. Feeds are copied: gradient buffers are written in place."""
    # An input that is an output would be returned as the memory that was fed.
    loaded = session(with_outputs(model, [name for name in wanted if name not in feeds]), level)
    names = [output.name for output in loaded.get_outputs()]
    copies = {name: np.array(value) for name, value in feeds.items()}
    return {**feeds, **dict(zip(names, loaded.run(None, copies)))}


def with_outputs(model, names):
    """A copy that delivers these values too."""
    model = onnx.load_from_string(model.SerializeToString())
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return model


FED = "fed:"


def with_products(model, values):
    """A copy in which these products are fed, under names that start with FED; what a Gemm adds is added to that."""
    model = onnx.load_from_string(model.SerializeToString())
    for node in model.graph.node:
        if node.output[0] not in values:
            continue
        [name] = node.output
        value, addends = values[name], node.input[2:]
        beta = [attribute.f for attribute in node.attribute if attribute.name == "beta"]
        assert not addends or beta in ([], [1.0])
        # What is an output too must not be an input itself, as in `run`.
        replaced = helper.make_node("Sum", [FED + name, *addends], [name])
        node.CopyFrom(replaced)
        element = helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(helper.make_tensor_value_info(FED + name, element, value.shape))
    return model


def gradients(model):
    """What goes into gradient accumulators: their outputs only say that they did."""
    accumulators = [node for node in model.graph.node if node.op_type == "InPlaceAccumulatorV2"]
    return [node.input[1] for node in accumulators]


def is_float(array):
    return np.issubdtype(array.dtype, np.floating)
