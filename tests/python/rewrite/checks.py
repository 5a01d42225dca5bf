"""What holds for every rewritten model, whatever it is."""

import itertools

import names
import numpy as np
import onnx
import oracle
import pytest
import runtime
from onnx import helper
from tool import GRAPH, NODE, OPSET_IMPORT, TRAINING_INFO, bindings, fields, graphs, nodes, rewrite

DAMPING = 0.5
PRODUCTS = ("Gemm", "MatMul", "FusedMatMul", "FusedGemm")
# A rewrite may remove these around products: layouts, and the sums that a stack of rows or the operator takes over.
REMOVABLE = (*oracle.LAYOUT, "ReduceSum", "Sum", "Add", "Sub", "Neg", "Mul")
# What it may add: the operator, what brings its inputs to their layout, and sums that lost a term.
ADDED = (*oracle.LAYOUT, "IsaacGemm", "Concat", "Constant", "Shape", "Slice", "Sum", "Add", "Neg", "Mul", "Gemm")


def wanted(case):
    return {layer.weight: (frozenset(layer.products), layer.reason) for layer in case.layers}


def check_layers(rewritten, case):
    """The report lists exactly the layers of the case."""
    assert rewritten.layers == wanted(case)
    assert rewritten.report["rewritten"] == sum(layer.reason is None for layer in case.layers)


# What happens to names, and to the order of nodes.
SCRAMBLES = {
    "unnamed": {},
    "unnamed-reordered": {"reorder": True},
    "misnamed": {"mislead": True},
    "misnamed-reordered": {"reorder": True, "mislead": True},
}


def check_structure(rewritten, case):
    """The right layers, nothing else touched, a model that loads."""
    check_layers(rewritten, case)
    check_untouched(rewritten, case)
    check_valid(rewritten)


def check_without_names(case, folder, seed, scramble="unnamed-reordered"):
    """The same layers are found where names say nothing or mislead. Only weights of a tie may change places."""
    model, table = names.scramble(case.model, seed, **SCRAMBLES[scramble])
    arguments = [table.get(argument, argument) for argument in case.arguments]
    rewritten = rewrite(model, folder, *arguments)
    expected = {
        table[weight]: (frozenset(table[product] for product in products), reason)
        for weight, (products, reason) in wanted(case).items()
    }
    ties = [{table[weight] for weight in tie} for tie in case.ties]
    back = {new: old for old, new in table.items()}
    assert original_names(untie(rewritten.layers, ties), back) == original_names(untie(expected, ties), back)


def untie(layers, ties):
    """`layers`, with the products of each tie in a fixed order."""
    layers = dict(layers)
    for tie in ties:
        weights = sorted(tie & layers.keys())
        found = [layers[weight] for weight in weights]
        layers.update(zip(weights, sorted(found, key=lambda layer: (sorted(layer[0]), str(layer[1])))))
    return layers


def original_names(layers, back):
    """For a message that can be read."""
    return {back[weight]: (sorted(map(back.get, products)), reason) for weight, (products, reason) in layers.items()}


def check_untouched(rewritten, case):
    """Everything but the products and their surroundings is there, byte for byte, in its order."""
    check_model_fields(rewritten)
    replaced = {name for layer in case.layers if layer.reason is None for name in layer.products}
    operators = 0
    for before, after in zip(graphs(rewritten.before), graphs(rewritten.after), strict=True):
        assert [f for f in fields(before) if f[0] != NODE] == [f for f in fields(after) if f[0] != NODE]
        old, new = nodes(before), nodes(after)
        common = set(old) & set(new)
        assert [node for node in new if node in common] == [node for node in old if node in common]
        for node in map(parse, set(old) - common):
            is_product = node.op_type in PRODUCTS and node.output[0] in replaced
            # A Gemm may lose what it adds, if that was a product.
            assert is_product or node.op_type in REMOVABLE, f"{node.op_type} {node.output[0]} is gone"
        added = [parse(node) for node in new if node not in common]
        assert {node.op_type for node in added} <= set(ADDED)
        operators += sum((node.domain, node.op_type) == ("ai.isaac", "IsaacGemm") for node in added)
    assert operators == len(rewritten_groups(case))


def rewritten_groups(case):
    """What becomes one operator each. Two weights may share a product."""
    return {group for layer in case.layers if layer.reason is None for group in layer.groups}


def check_model_fields(rewritten):
    """Behind the opset imports stands the operator's; nothing else of the model changes, apart from graphs."""

    def others(model):
        return [field for field in fields(model) if field[0] not in (GRAPH, TRAINING_INFO, OPSET_IMPORT)]

    def imports(model):
        return [payload for number, payload in fields(model) if number == OPSET_IMPORT]

    assert others(rewritten.after) == others(rewritten.before)
    assert bindings(rewritten.after) == bindings(rewritten.before)
    # A graph that ONNX Runtime wrote imports every domain that the process knew, which may be the operator's.
    before = imports(rewritten.before)
    is_known = any(onnx.OperatorSetIdProto.FromString(opset).domain == "ai.isaac" for opset in before)
    is_added = rewritten.report["rewritten"] > 0 and not is_known
    assert imports(rewritten.after) == before + [helper.make_opsetid("ai.isaac", 1).SerializeToString()] * is_added


def parse(node):
    return onnx.NodeProto.FromString(node)


def check_valid(rewritten):
    """onnx.checker accepts it, fully where it accepts the original fully."""
    for full in (False, True):
        if accepts(onnx.load_from_string(rewritten.before), full):
            onnx.checker.check_model(rewritten.model, full_check=full)


def accepts(model, full):
    try:
        onnx.checker.check_model(model, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def check_products(case):
    """The products of each layer, some of them transposed, add up to its gradient, with nothing left."""
    for layer in case.layers:
        gradient, products = f"{layer.weight}_grad", sorted(layer.products)
        values = runtime.run(case.model, case.feeds, [gradient, *products])
        choices = itertools.product(*((values[name], values[name].T) for name in products))
        shape = values[gradient].shape
        sums = [sum(terms) for terms in choices if all(term.shape == shape for term in terms)]
        assert any(error(total, values[gradient]) < 1e-5 for total in sums), f"{layer.weight}: {products} are not all"


def check_numbers(rewritten, case, damping=DAMPING):
    """At every optimisation level: ζ* of the original's factors where layers were rewritten, the original value elsewhere."""
    expected, original = oracle.expected(case, damping)
    model = case.runnable(rewritten.model)
    for level in runtime.LEVELS:
        got = runtime.run(model, case.feeds, runtime.gradients(model), level)
        for name, value in expected.items():
            assert_close(got[name], value, case.tolerance, f"{name} at level {level}")
    changed = [
        name for name, value in expected.items() if runtime.is_float(value) and error(value, original[name]) > 1e-3
    ]
    weights = {layer.groups for layer in case.layers if layer.reason is None}
    assert len(changed) >= len(weights), f"of {len(weights)} gradients only {changed} have changed"


def check_plain(model, case, folder):
    """At λ = inf everything is as in the original."""
    rewritten = rewrite(model, folder, "--lambda", "inf", *case.arguments)
    original = case.runnable(case.model)
    watched = runtime.gradients(original)
    expected = runtime.run(original, case.feeds, watched)
    got = runtime.run(case.runnable(rewritten.model), case.feeds, watched)
    for name, value in expected.items():
        assert_close(got[name], value, case.tolerance, name)
    return got


def assert_close(got, expected, tolerance, what):
    assert got.shape == expected.shape and got.dtype == expected.dtype, what
    if not runtime.is_float(expected):
        assert np.array_equal(got, expected), what
    elif not error(got, expected) <= tolerance:
        pytest.fail(f"{what}: relative error {error(got, expected):.1e}, allowed {tolerance:.0e}")


def error(got, expected):
    """The largest difference, relative to the largest element."""
    if not expected.size:
        return 0.0
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    largest = np.abs(expected).max()
    return np.abs(got - expected).max() / (largest or 1.0)
