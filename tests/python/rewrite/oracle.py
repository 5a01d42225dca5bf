"""What a rewritten graph has to compute, from the original graph and the formula.

The original graph runs in ONNX Runtime and delivers both factors of every product. ζ* of those is computed here in float64,
and put in the place of the products in the original graph, whose remaining part makes of it what every output has to be.
"""

import numpy as np
import runtime
from onnx import helper

LAYOUT = ["Identity", "Reshape", "Transpose", "Cast", "Squeeze", "Unsqueeze", "Flatten", "Expand"]


def zeta_star(g, a, damping):
    """gᵀ (I + a aᵀ/(b λ))⁻¹ a in float64, for g [..., b, m] and a [..., b, n]."""
    g, a = (np.asarray(factor, np.float64) for factor in (g, a))
    rows = a.shape[-2]
    curvature = a @ np.swapaxes(a, -1, -2) / (rows * damping)
    return np.swapaxes(g, -1, -2) @ np.linalg.solve(np.eye(rows) + curvature, a)


class Product:
    """A matrix product of the original graph, read as the weight gradient of a layer."""

    def __init__(self, case, layer, output):
        graph = case.model.training_info[0].algorithm if case.model.training_info else case.model.graph
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.node = self.makers[output]
        self.attributes = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        self.output, self.independent = output, layer.independent
        self.scale = layer.scales.get(output, 1.0)
        self.input_slot = layer.input_slots[output] if output in layer.input_slots else self.find_input_slot()

    def find_input_slot(self):
        """The gradient of a layer's output depends on the layer's input, and never the other way round."""
        left, right = self.node.input[:2]
        is_input = [self.root(left) in self.ancestors(right), self.root(right) in self.ancestors(left)]
        if not any(is_input):
            # A constant input whose transpose was folded is no value of the forward pass any more.
            is_input = [self.root(side) not in self.makers for side in (left, right)]
        assert sum(is_input) == 1, f"say which factor of {self.output} is the input"
        return is_input.index(True)

    def root(self, name):
        while name in self.makers and self.makers[name].op_type in LAYOUT:
            name = self.makers[name].input[0]
        return name

    def ancestors(self, name):
        found, pending = set(), [name]
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending.extend(self.makers[name].input if name in self.makers else [])
        return found

    def factors(self, values):
        """The gradient g and the input a as [independent layers ..., rows, features]."""
        sides = [values[name] for name in self.node.input[:2]]
        for side, letter in enumerate("AB"):
            if self.attributes.get(f"transBatch{letter}", 0):
                sides[side] = np.moveaxis(sides[side], 0, -2)
            # A product sums over the last axis of its left factor and the last but one of its right factor.
            if self.attributes.get(f"trans{letter}", 0) != (side == 0):
                sides[side] = np.swapaxes(sides[side], -1, -2)
        batch = np.broadcast_shapes(*(side.shape[:-2] for side in sides))
        sides = [np.broadcast_to(side, batch + side.shape[-2:]) for side in sides]
        a, g = sides[self.input_slot], sides[1 - self.input_slot]
        return self.flatten(g) * (self.attributes.get("alpha", 1.0) * self.scale), self.flatten(a)

    def flatten(self, side):
        """Moves the axes of independent layers to the front, and makes rows of all others but the last."""
        front = np.moveaxis(side, self.independent, range(len(self.independent)))
        kept = front.shape[: len(self.independent)]
        return front.reshape(*kept, -1, front.shape[-1])

    def place(self, result, values):
        """`result` [independent ..., m, n] in the form of the product: what is summed over later stands in the first place."""
        if self.input_slot == 0:
            result = np.swapaxes(result, -1, -2)
        placed = np.zeros(values[self.output].shape)
        front = np.moveaxis(placed, self.independent, range(len(self.independent)))
        summed = placed.ndim - result.ndim
        front[(slice(None),) * len(self.independent) + (0,) * summed] = result
        return placed


def expected(case, damping):
    """All outputs that the rewritten graph has to deliver, gradients included, and those of the original graph."""
    model = case.runnable(case.model)
    rewritten = [layer for layer in case.layers if layer.reason is None]
    products = {name: Product(case, layer, name) for layer in rewritten for name in layer.products}
    factors = {name for product in products.values() for name in product.node.input[:2]}
    watched = runtime.gradients(model)
    values = runtime.run(model, case.feeds, [*factors, *products, *watched])
    placed = {}
    for layer in rewritten:
        for group in layer.groups:
            condition([products[name] for name in group], damping, values, placed)
    wanted = [*(output.name for output in model.graph.output), *watched]
    cut = runtime.with_products(model, placed)
    feeds = {**case.feeds, **{runtime.FED + name: value for name, value in placed.items()}}
    outputs = runtime.run(cut, feeds, watched)
    return {name: outputs[name] for name in wanted}, {name: values[name] for name in wanted}


def condition(group, damping, values, placed):
    """ζ* of the rows of all products of a group; the last one delivers it, the others nothing."""
    factors = [product.factors(values) for product in group]
    g, a = (np.concatenate(side, axis=-2) for side in zip(*factors))
    results = [np.zeros_like(values[product.output]) for product in group]
    results[-1] += group[-1].place(zeta_star(g, a, damping) / group[-1].scale, values)
    placed.update((product.output, result) for product, result in zip(group, results))
