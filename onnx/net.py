"""A short way to write ONNX graphs by hand, and what a test needs to know about a graph that trains."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}
IR_VERSION = 8


@dataclass(frozen=True)
class Layer:
    """One trained weight, as PATTERNS.md says it has to come out."""

    weight: str
    # The outputs of its products. Each group adds up to one part of the weight, and is conditioned by the rows of all of it.
    groups: tuple
    reason: str | None = None
    # Axes of the product that index layers which have nothing to do with each other (experts).
    independent: tuple = ()
    # The factor with which a product goes into the sum of its group, where that is not 1.
    scales: dict = field(default_factory=dict)
    # Which operand of a product is the layer's input, where the other one does not depend on it.
    input_slots: dict = field(default_factory=dict)

    @property
    def products(self):
        return {product for group in self.groups for product in group}


def layer(weight, *products, **rest):
    """A layer whose products all add up."""
    return Layer(weight, (products,), **rest)


def sliced(weight, *products, **rest):
    """A layer whose products each make their own part of the weight."""
    return Layer(weight, tuple((product,) for product in products), **rest)


def as_is(model):
    """Most models need nothing."""
    return model


@dataclass
class Case:
    """A training graph, what to feed it, and what a rewriter has to find in it."""

    name: str
    model: ModelProto
    feeds: dict
    layers: list
    loss: str | None
    # Weights that only a name tells apart.
    ties: tuple = ()
    # Largest relative error that the element type allows.
    tolerance: float = 1e-5
    # Makes of the model something that a plain inference session runs.
    runnable: Callable = as_is
    # What isaac-rewrite has to be told.
    arguments: tuple = ()
    # What it was made from, where a tool made it.
    forward: ModelProto | None = None


def needed(nodes, wanted):
    """The nodes that `wanted` values depend on, in their order, and all of those values."""
    known, kept = set(wanted), []
    for node in reversed(nodes):
        if known & set(node.output):
            known.update(name for name in node.input if name)
            kept.insert(0, node)
    return kept, known


class Net:
    """A graph in the making. Every method returns the name of the value that it adds."""

    def __init__(self, opset=17, element=TensorProto.FLOAT, seed=0):
        self.opset, self.element = opset, element
        self.random = np.random.default_rng(seed)
        self.nodes, self.inputs, self.outputs, self.initializers = [], [], [], []
        self.trained, self.feeds, self.parameters = [], {}, {}

    def data(self, name, shape, feed=None, element=None):
        """An input that is fed with random numbers of the shape `feed`, or with that array."""
        self.inputs.append(helper.make_tensor_value_info(name, element or self.element, shape))
        if not isinstance(feed, np.ndarray):
            feed = self.normal(*(feed or shape))
        self.feeds[name] = feed
        return name

    def normal(self, *shape, scale=1.0):
        return (scale * self.random.standard_normal(shape)).astype(NUMPY[self.element])

    def weight(self, name, *shape, trained=True):
        """A parameter; one that is not trained is frozen."""
        fan_in = max(shape[-2:], default=1)
        self.parameters[name] = self.normal(*shape, scale=fan_in**-0.5)
        if trained:
            self.trained.append(name)
        self.initializers.append(numpy_helper.from_array(self.parameters[name], name))
        return name

    def constant(self, name, value):
        if not isinstance(value, np.ndarray):
            whole = isinstance(value, list) and all(isinstance(item, int) for item in value)
            value = np.array(value, np.int64 if whole else NUMPY[self.element])
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def op(self, op_type, *inputs, into, domain="", **attributes):
        """A node that makes `into`: a name, or a list of names."""
        outputs = [into] if isinstance(into, str) else into
        name = f"{op_type}:{outputs[0]}"
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, domain=domain, **attributes))
        return into

    def output(self, name, shape=None, element=None):
        self.outputs.append(helper.make_tensor_value_info(name, element or self.element, shape))
        return name

    def graph(self, name="net"):
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers)

    def model(self):
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain == "com.microsoft" for node in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(self.graph(), opset_imports=opsets, ir_version=IR_VERSION)
