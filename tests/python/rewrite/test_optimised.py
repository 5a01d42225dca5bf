"""The same graphs after ONNX Runtime's own optimiser: products fused with Transposes, scales and sums, under other names."""

import dataclasses

import checks
import corpus
import onnx
import pytest
import runtime
import step_net
from tool import rewrite

CASES = [*(("generated", name) for name in corpus.names()), *(("step", name) for name in step_net.names())]
BUILD = {"generated": corpus.generate, "step": step_net.build}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[1])
def original(request):
    kind, name = request.param
    return BUILD[kind](name)


@pytest.fixture(params=["basic", "extended", "all"])
def case(original, request, tmp_path):
    """The original as the runtime saves it at a level."""
    path = tmp_path / "optimised.onnx"
    runtime.session(original.model, request.param, path)
    model = onnx.load(path)
    layers = [follow(layer, original.model, model) for layer in original.layers]
    return dataclasses.replace(original, model=model, layers=layers)


def follow(layer, before, after):
    """The layer, with its products under the names that they have now.

    When the optimiser fuses a product with the Transpose, scale or sum behind it, the name is that one's. Two equal products
    become one, which the accumulators of both weights read.
    """
    makers = {name: node for node in after.graph.node for name in node.output}
    readers = {name: node for node in before.graph.node for name in node.input}

    def now(name):
        while name not in makers and layer.reason != "opaque":
            name = readers[name].output[0]
        is_accumulator = name in makers and makers[name].op_type == "InPlaceAccumulatorV2"
        return makers[name].input[1] if is_accumulator else name

    return dataclasses.replace(
        layer,
        groups=tuple(tuple(map(now, group)) for group in layer.groups),
        # A scale that moved into the product is its alpha now.
        scales={name: scale for name, scale in layer.scales.items() if now(name) == name},
    )


def test_layers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, *case.arguments)
    checks.check_structure(rewritten, case)
    checks.check_without_names(case, tmp_path, seed=0)


def test_numbers(case, tmp_path):
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING, *case.arguments)
    checks.check_numbers(rewritten, case)
    checks.check_plain(case.model, case, tmp_path)
