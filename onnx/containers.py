"""The same training graphs in other containers: ORTModule's, and training infos of a model."""

import dataclasses

import corpus
import numpy as np
import onnx
import step_net
from net import IR_VERSION, layer, needed
from onnx import helper

MICROSOFT = "com.microsoft"


def ort_module(name):
    """As ORTModule holds it: no loss, a YieldOp between the outputs and their gradients, the gradients as outputs."""
    case = corpus.generate(name)
    model = onnx.load_from_string(case.model.SerializeToString())
    graph = model.graph
    accumulators = [node for node in graph.node if node.op_type == "InPlaceAccumulatorV2"]
    accumulated = [node.input[1] for node in accumulators]
    buffers = {value.name: value.type for value in graph.input}
    outputs = [onnx.ValueInfoProto(name=node.input[1], type=buffers[node.input[0]]) for node in accumulators]
    yielded = helper.make_node("YieldOp", ["y"], ["y_grad"], "YieldOp_0", domain=MICROSOFT, full_shape_outputs=[0])
    nodes = [yielded if "y_grad" in node.output else node for node in graph.node]
    kept, values = needed(nodes, [*accumulated, "y"])
    replace(graph.node, kept)
    replace(graph.input, [value for value in graph.input if value.name in values])
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in values])
    replace(graph.output, outputs)
    feeds = {value.name: case.feeds[value.name] for value in graph.input}
    feeds["y_grad"] = np.random.default_rng(1).standard_normal(case.feeds["target"].shape).astype(np.float32)
    return dataclasses.replace(
        case, name=f"{name} in ORTModule", model=model, feeds=feeds, loss=None, runnable=without_yield
    )


def without_yield(model):
    """Forward and backward in one run: what the YieldOp hands over is an output, what it waits for an input."""
    model = onnx.load_from_string(model.SerializeToString())
    [yielded] = [node for node in model.graph.node if node.op_type == "YieldOp"]
    model.graph.node.remove(yielded)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in yielded.input)
    element = onnx.TensorProto.FLOAT
    model.graph.input.extend(helper.make_tensor_value_info(name, element, None) for name in yielded.output)
    return model


def replace(field, values):
    values = list(values)
    del field[:]
    field.extend(values)


def training_info(name):
    """An inference model whose training info holds the whole step, which binds new values to the model's initializers."""
    case = step_net.build(name)
    step = case.model.graph
    initial = {tensor.name for tensor in step.initializer}
    bound = {value.name: f"{value.name}.next" for value in step.input if value.name in initial}
    nodes, values = needed(list(step.node), ["y"])
    main = helper.make_graph(
        [renamed(node, {name for other in nodes for name in other.output}) for node in nodes],
        "inference",
        [value for value in step.input if value.name in values and value.name not in initial],
        [helper.make_tensor_value_info("inference:y", onnx.TensorProto.FLOAT, None)],
        [tensor for tensor in step.initializer if tensor.name in values],
    )
    shared = {tensor.name for tensor in main.initializer}
    algorithm = helper.make_graph(
        step.node,
        "algorithm",
        [value for value in step.input if value.name not in initial],
        step.output,
        [tensor for tensor in step.initializer if tensor.name not in shared],
    )
    main.output[0].type.tensor_type.shape.SetInParent()
    model = helper.make_model(main, opset_imports=case.model.opset_import, ir_version=IR_VERSION)
    info = helper.make_training_info(algorithm, list(bound.items()), None, None)
    model.training_info.append(info)
    feeds = {name: value for name, value in case.feeds.items() if name not in initial}
    return dataclasses.replace(case, name=f"{name} as training info", model=model, feeds=feeds, runnable=algorithm_of)


def renamed(node, made):
    """A node with values of its own; what it shares with the algorithm are initializers and inputs."""
    node = onnx.NodeProto.FromString(node.SerializeToString())
    for names in (node.input, node.output):
        names[:] = [f"inference:{name}" if name in made else name for name in names]
    return node


def algorithm_of(model):
    """The algorithm as a model that a session runs."""
    graph = onnx.GraphProto.FromString(model.training_info[0].algorithm.SerializeToString())
    graph.initializer.extend(model.graph.initializer)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def optimizer_node(op_type):
    """A step whose update is one node of an optimizer, as older training graphs have it."""
    net = step_net.Step()
    net.data("x", [5, 6])
    net.scalar("rate", 0.1)
    net.data("step", [], np.array(1, np.int64), onnx.TensorProto.INT64)
    weights = {"w0": (6, 6), "w1": (6, 6)}
    for weight, shape in weights.items():
        net.parameter(weight, *shape)
    net.op("Tanh", net.op("MatMul", "x", "w0", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", "h", "w1", into="y"), 5, 6)
    dz = net.tanh_gradient("h", net.op("Gemm", dy, "w1", into="dh", transB=1), into="dz")
    net.op("Gemm", "h", dy, into="p1", transA=1)
    net.op("Gemm", "x", dz, into="p0", transA=1)
    update(net, op_type, {"w0": "p0", "w1": "p1"})
    model = net.model()
    model.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    return step_net.Case(op_type, model, net.feeds, [layer("w0", "p0"), layer("w1", "p1")], "loss")


def update(net, op_type, gradients):
    """All parameters in one node of the preview domain, or one of com.microsoft's for each."""
    preview, shape = "ai.onnx.preview.training", [6, 6]
    kinds = {"SGDOptimizer": 0, "Adam": 2, "Momentum": 1, "Adagrad": 1}[op_type]
    states = [[net.data(f"{weight}.state{kind}", shape) for weight in gradients] for kind in range(kinds)]
    new = [net.output(f"{weight}.next", shape) for weight in gradients]
    if op_type == "SGDOptimizer":
        for weight, gradient in gradients.items():
            net.op(op_type, "rate", weight, gradient, into=[f"{weight}.next"], domain=MICROSOFT)
        return
    attributes = {"Momentum": {"alpha": 0.9, "beta": 1.0, "mode": "standard", "norm_coefficient": 0.0}}.get(op_type, {})
    states_after = [net.output(f"{name}.next", shape) for group in states for name in group]
    inputs = ["rate", "step", *gradients, *gradients.values(), *(name for group in states for name in group)]
    net.op(op_type, *inputs, into=[*new, *states_after], domain=preview, **attributes)
