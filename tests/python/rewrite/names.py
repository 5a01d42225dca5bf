"""Taking every hint out of names, and the order of nodes that no input forces."""

import random

import onnx
from onnx import AttributeProto


def scramble(model, seed, reorder=False, mislead=False):
    """A copy of `model` all of whose names are replaced at random, and the new name of each old one.

    New names say nothing; to mislead, they are those of other values.
    """
    model = onnx.load_from_string(model.SerializeToString())
    generator = random.Random(seed)
    graphs = [model.graph, *(info.algorithm for info in model.training_info)]
    old = sorted(set().union(*map(value_names, graphs)))
    new = list(old) if mislead else [f"v{number:05}" for number in range(len(old))]
    generator.shuffle(new)
    table = dict(zip(old, new))
    for graph in graphs:
        rename(graph, table, generator)
        if reorder:
            shuffle(graph, generator)
    for info in model.training_info:
        for binding in info.update_binding:
            binding.key, binding.value = table[binding.key], table[binding.value]
    return model, table


def value_names(graph):
    names = {value.name for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]}
    for node in graph.node:
        names.update(node.input, node.output)
        for inner in subgraphs(node):
            names |= value_names(inner)
    return names - {""}


def subgraphs(node):
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def rename(graph, table, generator):
    graph.name, graph.doc_string = "g", ""
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        value.name, value.doc_string = table[value.name], ""
    for node in graph.node:
        node.name, node.doc_string = f"n{generator.randrange(10**9)}", ""
        for names in (node.input, node.output):
            names[:] = [name and table[name] for name in names]
        for inner in subgraphs(node):
            rename(inner, table, generator)


def shuffle(graph, generator):
    """Puts the nodes in another order that respects their inputs."""
    made = {output for node in graph.node for output in node.output}
    waiting = list(graph.node)
    generator.shuffle(waiting)
    ordered, known = [], {""}
    while waiting:
        ready = next(node for node in waiting if (reads(node) & made) <= known)
        waiting.remove(ready)
        known.update(ready.output)
        ordered.append(ready)
    del graph.node[:]
    graph.node.extend(ordered)


def reads(node):
    names = set(node.input)
    for inner in subgraphs(node):
        for nested in inner.node:
            names |= reads(nested)
    return names
