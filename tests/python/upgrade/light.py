"""Gradients of the whole networks that the onnx package brings (opset 9), against PyTorch in double precision.

    ISAAC_REWRITE=target/release/isaac-rewrite ISAAC_ONNX_DATA=... python tests/python/upgrade/light.py > docs/networks.md

Needs torch, onnx 1.16.2 and onnxruntime; torch evaluates the file's own operators, so that what is compared shares nothing with the
training graph. The files hold shapes in the place of weights, which get random numbers here; dropout is off, and running statistics are frozen.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

DATA = Path(os.environ["ISAAC_ONNX_DATA"])


def filled(model, generator):
    """The model with random numbers for the weights, of a scale that keeps activations in range."""
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    uses = {}
    for node in graph.node:
        for slot, name in enumerate(node.input):
            uses.setdefault(name, (node, slot))

    def numbers(name, shape):
        node, slot = uses[name]
        if node.op_type == "Unsqueeze":
            node, slot = uses[node.output[0]]
        is_factor = node.op_type == "Mul" or (node.op_type == "BatchNormalization" and slot in (1, 4))
        if is_factor:
            return generator.uniform(0.5, 1.5, shape)
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return generator.standard_normal(shape) * scale

    weights = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in weights:
        values = numbers(node.output[0], shapes[node.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    for node in graph.node:
        if node.op_type == "Dropout":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("ratio", 0.0))
    gone = {node.input[0] for node in weights}
    for tensors in (graph.initializer, graph.input):
        for entry in [entry for entry in tensors if entry.name in gone]:
            tensors.remove(entry)
    # As the rest of the file has it, for its version of the IR.
    for node in weights:
        graph.input.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shapes[node.input[0]].tolist()))
    return model


def spatial(attributes, x):
    """Pads around x as torch writes them: of the last axis first."""
    pads = attributes.get("pads", [0, 0, 0, 0])
    return [pads[1], pads[3], pads[0], pads[2]]


def pooled(x, attributes, function, value):
    x = F.pad(x, spatial(attributes, x), value=value)
    return function(x, attributes["kernel_shape"], attributes.get("strides", [1, 1]))


def average(x, attributes):
    """Of the elements that are there; padding does not count."""
    ones = torch.ones_like(x[:1, :1])
    return pooled(x, attributes, F.avg_pool2d, 0.0) / pooled(ones, attributes, F.avg_pool2d, 0.0)


def convolved(attributes, x, weight, bias=None):
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return F.conv2d(F.pad(x, spatial(attributes, x)), weight, bias, strides, 0, dilations, attributes.get("group", 1))


def coerced(x, axis):
    return F.softmax(x.reshape(int(np.prod(x.shape[:axis])), -1), 1).reshape(x.shape)


def gemm(a, x, y, z):
    x, y = (x.T if a.get("transA") else x), (y.T if a.get("transB") else y)
    return a.get("alpha", 1.0) * (x @ y) + a.get("beta", 1.0) * z


def unsqueezed(x, axes):
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


OPERATORS = {
    "Add": lambda a, x, y: x + y,
    "AveragePool": lambda a, x: average(x, a),
    "BatchNormalization": lambda a, x, s, b, m, v: F.batch_norm(x, m.detach(), v.detach(), s, b, eps=a.get("epsilon", 1e-5)),
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Conv": convolved,
    "Dropout": lambda a, x: x,
    "Gemm": gemm,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "LRN": lambda a, x: F.local_response_norm(x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)),
    "MaxPool": lambda a, x: pooled(x, a, F.max_pool2d, -torch.inf),
    "Mul": lambda a, x, y: x * y,
    "Relu": lambda a, x: x.relu(),
    "Reshape": lambda a, x, shape: x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())]),
    "Softmax": lambda a, x: coerced(x, a.get("axis", 1)),
    "Sum": lambda a, *terms: sum(terms),
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Unsqueeze": lambda a, x: unsqueezed(x, a["axes"]),
}


def evaluate(model, values):
    """Puts every value of the graph into `values`, which has those of inputs and initializers."""
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        yield node
        values[node.output[0]] = OPERATORS[node.op_type](attributes, *(values[name] for name in node.input))


def initial(model, x, precision):
    """By name: inputs and initializers."""
    tensors = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    tensors[data_input(model).name] = torch.tensor(x)
    return {name: value.to(precision) if value.is_floating_point() else value for name, value in tensors.items()}


def calibrated(model, x):
    """The model with running statistics that are those of x, as if it had been trained."""
    values, stored = initial(model, x, torch.float64), {tensor.name: tensor for tensor in model.graph.initializer}
    for node in evaluate(model, values):
        if node.op_type == "BatchNormalization":
            data = values[node.input[0]]
            for name, statistic in zip(node.input[3:5], [data.mean((0, 2, 3)), data.var((0, 2, 3)) + 0.1]):
                values[name] = statistic.float().double()
                stored[name].CopyFrom(numpy_helper.from_array(statistic.float().numpy(), name))
    return model


def reference(model, x, label, precision):
    """Loss and gradients as PyTorch computes them."""
    values = initial(model, x, precision)
    parameters = {tensor.name: values[tensor.name] for tensor in model.graph.initializer}
    parameters = {name: value.requires_grad_() for name, value in parameters.items() if value.is_floating_point()}
    for _ in evaluate(model, values):
        pass
    loss = F.cross_entropy(values[model.graph.output[0].name].flatten(1), torch.tensor([label]))
    loss.backward()
    return loss.item(), {name: value.grad.double().numpy() for name, value in parameters.items() if value.grad is not None}


def data_input(model):
    known = {tensor.name for tensor in model.graph.initializer}
    return next(info for info in model.graph.input if info.name not in known)


def train(model, x, label):
    """Loss and gradients of the training graph."""
    statistics = [name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]]
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(model, before)
        command = [os.environ["ISAAC_REWRITE"], before, "-o", after, "--loss", "cross-entropy", "--class-axis", "1"]
        command += ["--method", "gradient", "--optimizer", "none"]
        for name in statistics:
            command += ["--freeze", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        session = onnxruntime.InferenceSession(after, providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map["isaac.training"])
    [labels] = [info for info in session.get_inputs() if info.name == described["labels"][0]]
    feeds = {data_input(model).name: x, labels.name: np.full([1] * len(labels.shape), label)}
    outputs = dict(zip([info.name for info in session.get_outputs()], session.run(None, feeds)))
    gradients = {entry["name"]: outputs[entry["gradient"]] for entry in described["parameters"]}
    return outputs[described["loss"]], gradients


def distance(got, expected):
    """The length of the error relative to that of what is expected, over all tensors together."""
    squares = [(np.square(got[name] - value).sum(), np.square(value).sum()) for name, value in expected.items()]
    errors, lengths = np.sum(squares, axis=0)
    return np.sqrt(errors / lengths)


def row(path):
    generator = np.random.default_rng(0)
    model = filled(onnx.load(path), generator)
    shape = [dim.dim_value for dim in data_input(model).type.tensor_type.shape.dim]
    x, label = generator.standard_normal(shape).astype(np.float32), 3
    model = calibrated(model, x)
    start = time.perf_counter()
    loss, gradients = train(model, x, label)
    seconds = time.perf_counter() - start
    expected_loss, expected = reference(model, x, label, torch.float64)
    _, rounded = reference(model, x, label, torch.float32)
    expected = {name: expected[name] for name in gradients}
    distances = {name: distance(gradients, {name: value}) for name, value in expected.items()}
    farthest = max(distances, key=distances.get)
    worst = distances[farthest]
    count = sum(value.size for value in expected.values()) / 1e6
    name = path.stem.removeprefix("light_")
    print(f"{name}: {seconds:.1f} s, {farthest}, {np.abs(expected[farthest]).max()}", file=sys.stderr)
    whole, rounding = distance(gradients, expected), distance(rounded, expected)
    error = abs(loss - expected_loss) / expected_loss
    return f"| {name} | {len(model.graph.node)} | {len(expected)} | {count:.1f} M | {error:.0e} | {whole:.0e} | {worst:.0e} | {rounding:.0e} |"


def main():
    onnxruntime.set_default_logger_severity(3)
    print("# Gradients of whole networks\n")
    print("Made by `tests/python/upgrade/light.py`: the networks of opset 9 that the onnx package brings, with random weights, at batch size 1. Their")
    print("training graphs run in ONNX Runtime in float; loss and gradients are compared with PyTorch's in double. Errors are relative: of the")
    print("loss, of all gradients as one vector, and of the parameter with the largest. The last column is the error of PyTorch's own gradient in")
    print("float: rounding puts some activations of a deep network on the other side of a ReLU's kink.\n")
    print("| network | nodes | trained tensors | numbers | loss | gradient | worst parameter | PyTorch in float |")
    print("|---|---|---|---|---|---|---|---|")
    for path in sorted((DATA / "light").glob("*.onnx")):
        print(row(path), flush=True)


if __name__ == "__main__":
    main()
