"""What PyTorch in double precision says of one of the networks that light.py looks at, and of its training graph.

    ISAAC_REWRITE=target/release/isaac-rewrite python tests/python/upgrade/light_reference.py network.onnx FOLDER

Needs torch and onnx 1.16.2. Torch evaluates the file's own operators, so that what is compared shares nothing with the training graph. FOLDER gets
the network with random weights, its training graph, and the gradients as autograd gives them. What is printed says how far from them the training
graph's own gradients are, in double as well: torch evaluates its operators, without autograd.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

LABEL = 3

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


def spatial(attributes):
    """Pads around the spatial axes as torch writes them: of the last axis first."""
    pads = attributes.get("pads", [0, 0, 0, 0])
    return [pads[1], pads[3], pads[0], pads[2]]


def pooled(x, attributes, function, value):
    x = F.pad(x, spatial(attributes), value=value)
    return function(x, attributes["kernel_shape"], attributes.get("strides", [1, 1]))


def average(a, x):
    """Of the elements that are there, unless padding counts."""
    mean = pooled(x, a, F.avg_pool2d, 0.0)
    return mean if a.get("count_include_pad") else mean / pooled(torch.ones_like(x[:1, :1]), a, F.avg_pool2d, 0.0)


def largest(a, x):
    """The largest elements, and their places in the whole tensor."""
    around, places = spatial(a), torch.arange(x.numel()).reshape(x.shape)
    y, at = F.max_pool2d(F.pad(x, around, value=-torch.inf), a["kernel_shape"], a.get("strides", [1, 1]), return_indices=True)
    return y, F.pad(places, around).flatten(2).gather(2, at.flatten(2)).reshape(at.shape)


def convolved(a, x, weight, bias=None):
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return F.conv2d(F.pad(x, spatial(a)), weight, bias, strides, 0, dilations, a.get("group", 1))


def convolved_back(a, x, weight):
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    y = F.conv_transpose2d(x, weight, None, strides, 0, 0, a.get("group", 1), dilations)
    rows, columns = a.get("output_padding", [0, 0])
    return F.pad(F.pad(y, [0, columns, 0, rows]), [-pad for pad in spatial(a)])


def coerced(x, axis):
    return F.softmax(x.reshape(int(np.prod(x.shape[:axis])), -1), 1).reshape(x.shape)


def gemm(a, x, y, z=None):
    x, y = (x.T if a.get("transA") else x), (y.T if a.get("transB") else y)
    product = a.get("alpha", 1.0) * (x @ y)
    return product if z is None else product + a.get("beta", 1.0) * z


def unsqueezed(x, axes):
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


# Of the networks, in opset 9.
OPERATORS = {
    "Add": lambda a, x, y: x + y,
    "AveragePool": average,
    "BatchNormalization": lambda a, x, s, b, m, v: F.batch_norm(x, m.detach(), v.detach(), s, b, eps=a.get("epsilon", 1e-5)),
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Conv": convolved,
    "Dropout": lambda a, x, *settings: x,
    "Gemm": gemm,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "LRN": lambda a, x: F.local_response_norm(x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)),
    "MaxPool": largest,
    "Mul": lambda a, x, y: x * y,
    "Relu": lambda a, x: x.relu(),
    "Reshape": lambda a, x, shape: x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())]),
    "Softmax": lambda a, x: coerced(x, a.get("axis", 1)),
    "Sum": lambda a, *terms: sum(terms),
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Unsqueeze": lambda a, x: unsqueezed(x, a["axes"]),
}


def divided(a, x, y):
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def padded(a, x, pads, value=None):
    begins, ends = pads.tolist()[: x.ndim], pads.tolist()[x.ndim :]
    around = [pad for pair in reversed(list(zip(begins, ends))) for pad in pair]
    return F.pad(x, around, value=0 if value is None else value.item())


def part(a, x, starts, ends, axes=None, steps=None):
    axes = range(len(starts)) if axes is None else axes.tolist()
    for at, axis in enumerate(axes):
        step = 1 if steps is None else steps[at].item()
        index = torch.arange(x.shape[axis])[slice(starts[at].item(), ends[at].item(), step)]
        x = x.index_select(axis, index)
    return x


def summed(a, x, axes=None):
    return x.sum() if axes is None else x.sum(axes.tolist(), keepdim=bool(a.get("keepdims", 1)))


def typed(tensor):
    """A constant, with doubles in the place of floats."""
    value = torch.tensor(numpy_helper.to_array(tensor))
    return value.double() if value.is_floating_point() else value


ELEMENTS = {TensorProto.FLOAT: torch.float64, TensorProto.INT64: torch.int64, TensorProto.BOOL: torch.bool}

# Of the training graphs, in opset 17.
OF_TRAINING = OPERATORS | {
    "ArgMax": lambda a, x: x.argmax(a["axis"], keepdim=bool(a.get("keepdims", 1))),
    "Cast": lambda a, x: x.to(ELEMENTS[a["to"]]),
    "Constant": lambda a: typed(a["value"]),
    "ConstantOfShape": lambda a, shape: typed(a["value"]).expand(shape.tolist()),
    "ConvTranspose": convolved_back,
    "Div": divided,
    "Equal": lambda a, x, y: x == y,
    "Exp": lambda a, x: x.exp(),
    "Expand": lambda a, x, shape: x.expand(torch.broadcast_shapes(x.shape, shape.tolist())),
    "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "GatherElements": lambda a, x, at: x.gather(a.get("axis", 0), at),
    "Greater": lambda a, x, y: x > y,
    "Less": lambda a, x, y: x < y,
    "LogSoftmax": lambda a, x: F.log_softmax(x, a.get("axis", -1)),
    "MatMul": lambda a, x, y: x @ y,
    "Neg": lambda a, x: -x,
    "Pad": padded,
    "Pow": lambda a, x, y: x**y,
    "Reciprocal": lambda a, x: 1 / x,
    "ReduceSum": summed,
    "ScatterElements": lambda a, x, at, added: x.scatter_add(a["axis"], at, added),
    "Shape": lambda a, x: torch.tensor(x.shape),
    "Size": lambda a, x: torch.tensor(x.numel()),
    "Slice": part,
    "Softmax": lambda a, x: F.softmax(x, a.get("axis", -1)),
    "Split": lambda a, x, sizes: x.split(sizes.tolist(), a.get("axis", 0)),
    "Sqrt": lambda a, x: x.sqrt(),
    "Squeeze": lambda a, x, axes: x.squeeze(axes.tolist()),
    "Sub": lambda a, x, y: x - y,
    "Unsqueeze": lambda a, x, axes: unsqueezed(x, axes.tolist()),
    "Where": lambda a, condition, x, y: torch.where(condition, x, y),
}


def evaluate(model, values, operators=OPERATORS):
    """Puts every value of the graph into `values`, which has those of inputs and initializers."""
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        yield node
        results = operators[node.op_type](attributes, *(values[name] if name else None for name in node.input))
        values.update(zip(node.output, results if isinstance(results, tuple) else [results]))


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


def reference(model, x, precision):
    """Loss and gradients as PyTorch computes them."""
    values = initial(model, x, precision)
    parameters = {tensor.name: values[tensor.name] for tensor in model.graph.initializer}
    parameters = {name: value.requires_grad_() for name, value in parameters.items() if value.is_floating_point()}
    for _ in evaluate(model, values):
        pass
    loss = F.cross_entropy(values[model.graph.output[0].name].flatten(1), torch.tensor([LABEL]))
    loss.backward()
    return loss.item(), {name: value.grad.double().numpy() for name, value in parameters.items() if value.grad is not None}


def data_input(model):
    known = {tensor.name for tensor in model.graph.initializer}
    return next(info for info in model.graph.input if info.name not in known)


def distance(got, expected):
    """The length of the error relative to that of what is expected, over all tensors together."""
    squares = [(np.square(got[name] - value).sum(), np.square(value).sum()) for name, value in expected.items()]
    errors, lengths = np.sum(squares, axis=0)
    return np.sqrt(errors / lengths)


def training_graph(source, target, model):
    """Runs isaac-rewrite."""
    statistics = [name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]]
    command = [os.environ["ISAAC_REWRITE"], source, "-o", target, "--loss", "cross-entropy", "--class-axis", "1"]
    command += ["--method", "gradient", "--optimizer", "none"]
    for name in statistics:
        command += ["--freeze", name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return onnx.load(target)


def label_of(training):
    """The class of the one example, or of its only place, in the shape that the graph wants."""
    [properties] = [entry.value for entry in training.metadata_props if entry.key == "isaac.training"]
    described = json.loads(properties)
    [labels] = [info for info in training.graph.input if info.name == described["labels"][0]]
    return described, labels.name, np.full([1] * len(labels.type.tensor_type.shape.dim), LABEL)


@torch.no_grad()
def own(training, x):
    """Loss and gradients as the training graph's operators give them, in double."""
    described, labels, label = label_of(training)
    values = initial(training, x, torch.float64) | {labels: torch.tensor(label)}
    for _ in evaluate(training, values, OF_TRAINING):
        pass
    return values[described["loss"]].item(), {p["name"]: values[p["gradient"]].numpy() for p in described["parameters"]}


def main(path, folder):
    generator = np.random.default_rng(0)
    model = filled(onnx.load(path), generator)
    shape = [dim.dim_value for dim in data_input(model).type.tensor_type.shape.dim]
    x = generator.standard_normal(shape).astype(np.float32)
    onnx.save(calibrated(model, x), folder / "network.onnx")
    training = training_graph(folder / "network.onnx", folder / "train.onnx", model)
    loss, gradients = own(training, x)
    expected_loss, expected = reference(model, x, torch.float64)
    expected = {name: expected[name] for name in gradients}
    rounded = distance(reference(model, x, torch.float32)[1], expected)
    _, labels, label = label_of(training)
    np.savez(folder / "expected.npz", **expected)
    np.savez(folder / "feeds.npz", **{data_input(model).name: x, labels: label})
    print(json.dumps({
        "nodes": len(model.graph.node),
        "loss": expected_loss,
        "loss error": abs(loss - expected_loss) / expected_loss,
        "gradient error": distance(gradients, expected),
        "worst parameter": max(distance(gradients, {name: value}) for name, value in expected.items()),
        "rounded": rounded,
    }))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
