"""x (1 + erf (c x)), which exporters write in many ways, has its gradient made in one go."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import suite
from onnx import helper, numpy_helper
from test_gradient_operator import model, run

C = 1 / math.sqrt(2)
# What one gradient as a whole takes. By operator, the products alone would be five.
IN_ONE_GO = ["Mul", "Sub", "Exp", "Mul", "Add", "Mul", "Mul"]


def written(text):
    """Nodes from lines such as `u = Div x 1.5`; numbers are constants."""
    nodes = []
    for line in text.split("; "):
        output, right = line.split(" = ")
        op_type, *operands = right.split()
        for operand in operands:
            if operand[0].isdigit() or operand[0] == "-":
                value = numpy_helper.from_array(np.array(float(operand), np.float32))
                nodes.append(helper.make_node("Constant", [], [operand], value=value))
        nodes.append(helper.make_node(op_type, operands, [output]))
    made = [node.output[0] for node in nodes]
    return [node for i, node in enumerate(nodes) if node.output[0] not in made[:i]]


# By name: the graph, c and k.
FORMS = {
    "PyTorch": ("u = Div x 1.4142135; e = Erf u; p = Add e 1; q = Mul x p; y = Mul q 0.5", C, 0.5),
    "PyTorch, newer": ("h = Mul x 0.5; u = Mul x 0.70710678; e = Erf u; p = Add e 1; y = Mul h p", C, 0.5),
    "TensorFlow": ("u = Mul 0.70710678 x; e = Erf u; p = Add 1 e; cdf = Mul 0.5 p; y = Mul x cdf", C, 0.5),
    "a division at the end": ("u = Mul x 0.7; e = Erf u; p = Add e 1; q = Mul p x; y = Div q 4", 0.7, 0.25),
    "everything scaled": (
        "h = Mul x 3; u = Mul x 2; e = Erf u; p = Add e 1; g = Mul p 0.5; q = Mul g h; y = Mul q -2",
        2,
        -3,
    ),
    "nothing scaled but the argument": ("u = Mul x 2; e = Erf u; p = Add e 1; y = Mul x p", 2, 1),
    "nothing scaled": ("e = Erf x; p = Add e 1; y = Mul x p", 1, 1),
}
# Not such a function, or not only.
OTHERS = {
    "another shift": "u = Mul x 0.7; e = Erf u; p = Add e 2; y = Mul x p",
    "a falling gate": "u = Mul x -0.7; e = Erf u; p = Add e 1; y = Mul x p",
    "another factor": "z = Tanh x; u = Mul x 0.7; e = Erf u; p = Add e 1; y = Mul z p",
    "two gates": "u = Mul x 0.7; e = Erf u; p = Add e e; y = Mul x p",
}


def way(proto, folder):
    """The operators of the backward pass."""
    path, refusal = suite.lower(proto, folder)
    assert refusal is None, refusal
    names = {name for node in proto.graph.node for name in node.output}
    nodes = [node for node in onnx.load(path).graph.node if not names & set(node.output)]
    return [node.op_type for node in nodes if node.op_type not in ("Constant", "ConstantOfShape", "Identity", "Shape")]


def slopes(text, x, extra=""):
    """dy/dx in double, by central differences of the nodes that ONNX's reference evaluator runs."""
    nodes = written(text + extra)
    for node in nodes:
        if node.op_type == "Constant":
            value = numpy_helper.to_array(node.attribute[0].t)
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(value.astype(np.float64)))
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, x.shape) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", info[:1], info[1:])
    evaluator = onnx.reference.ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x, h = x.astype(np.float64), 1e-5
    [above], [below] = (evaluator.run(None, {"x": at}) for at in (x + h, x - h))
    return (above - below) / (2 * h)


def inputs():
    return np.linspace(-6, 6, 200, dtype=np.float32).reshape(20, 10)


@pytest.mark.parametrize("form", FORMS)
def test_in_one_go(form, tmp_path):
    text, c, k = FORMS[form]
    x = inputs()
    proto = model(written(text), ["x"], x.shape)
    [got] = run(proto, tmp_path, x)
    wide = x.astype(np.float64)
    erf = np.vectorize(math.erf)
    expected = k * (1 + erf(c * wide) + wide * 2 * c / math.sqrt(math.pi) * np.exp(-((c * wide) ** 2)))
    np.testing.assert_allclose(got, expected, atol=1e-6 * abs(k))
    np.testing.assert_allclose(slopes(text, x), expected, atol=1e-7 * abs(k))
    assert way(proto, tmp_path) == IN_ONE_GO


@pytest.mark.parametrize("form", OTHERS)
def test_what_only_looks_like_it(form, tmp_path):
    x = inputs()
    proto = model(written(OTHERS[form]), ["x"], x.shape)
    [got] = run(proto, tmp_path, x)
    np.testing.assert_allclose(got, slopes(OTHERS[form], x), atol=1e-6)
    assert way(proto, tmp_path) != IN_ONE_GO


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_elsewhere_too(form, tmp_path):
    """Every value in between goes into the result on another way as well."""
    text = FORMS[form][0].replace("y = ", "r = ")
    names = [line.split(" = ")[0] for line in text.split("; ")]
    extra = "".join(f"; s{i} = Add {f's{i - 1}' if i else 'x'} {name}" for i, name in enumerate(names))
    extra += f"; y = Mul s{len(names) - 1} r"
    x = inputs()
    [got] = run(model(written(text + extra), ["x"], x.shape), tmp_path, x)
    expected = slopes(text, x, extra)
    np.testing.assert_allclose(got, expected, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("wanted", ["u", "e", "p", "q"])
def test_a_wanted_value_in_between(wanted, tmp_path):
    """Gradients of values between x and the result have to be made."""
    text, _, k = FORMS["PyTorch"]
    x = inputs()
    got, of_wanted = run(model(written(text), ["x", wanted], x.shape), tmp_path, x)
    wide = x.astype(np.float64)
    bell = 2 / math.sqrt(math.pi) * np.exp(-((C * wide) ** 2))
    expected = {"u": k * wide * bell, "e": k * wide, "p": k * wide, "q": np.full(x.shape, k)}[wanted]
    np.testing.assert_allclose(of_wanted, expected, atol=2e-6)
    np.testing.assert_allclose(got, slopes(text, x), atol=1e-6)


def test_a_vector_that_is_repeated(tmp_path):
    """A scaling with more axes than x makes the result another shape than x."""
    nodes = written("u = Mul x 0.7; e = Erf u; p = Add e 1; q = Mul x p")
    half = numpy_helper.from_array(np.array([[[0.5]]], np.float32))
    nodes += [helper.make_node("Constant", [], ["half"], value=half), helper.make_node("Mul", ["q", "half"], ["y"])]
    x = inputs()[0]
    [got] = run(model(nodes, ["x"], x.shape), tmp_path, x)
    assert got.shape == x.shape
    np.testing.assert_allclose(got, slopes("u = Mul x 0.7; e = Erf u; p = Add e 1; q = Mul x p; y = Mul q 0.5", x), atol=1e-6)
