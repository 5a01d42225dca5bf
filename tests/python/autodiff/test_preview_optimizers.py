"""Adam, Adagrad and Momentum of ai.onnx.preview.training, written out in standard operators."""

import os
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest
import suite
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

DOMAIN = "ai.onnx.preview.training"
# What the operators take behind R and T; all but the gradients G comes out again.
GROUPS = {"Adam": "XGVH", "Adagrad": "XGH", "Momentum": "XGV"}
NODE_TESTS = "adagrad adagrad_multiple adam adam_multiple momentum momentum_multiple nesterov_momentum".split()
ATTRIBUTES = {
    "Adam": [{}, dict(alpha=0.8, beta=0.95, epsilon=0.02, norm_coefficient=0.3, norm_coefficient_post=0.05)],
    "Adagrad": [{}, dict(epsilon=0.02, decay_factor=0.2, norm_coefficient=0.3)],
    "Momentum": [
        dict(alpha=0.9, beta=0.4, norm_coefficient=0.0, mode="standard"),
        dict(alpha=0.9, beta=0.4, norm_coefficient=0.3, mode="nesterov"),
    ],
}
CASES = [(operator, attributes) for operator, choices in ATTRIBUTES.items() for attributes in choices]


def adam(r, t, x, g, v, h, alpha, beta, epsilon, norm_coefficient, norm_coefficient_post):
    g = norm_coefficient * x + g
    v = alpha * v + (1 - alpha) * g
    h = beta * h + (1 - beta) * g * g
    if t > 0:
        r = r * np.sqrt(1 - beta**t) / (1 - alpha**t)
    return (1 - norm_coefficient_post) * (x - r * v / (np.sqrt(h) + epsilon)), v, h


def adagrad(r, t, x, g, h, epsilon, decay_factor, norm_coefficient):
    g = norm_coefficient * x + g
    h = h + g * g
    return x - r / (1 + t * decay_factor) * g / (np.sqrt(h) + epsilon), h


def momentum(r, t, x, g, v, alpha, beta, norm_coefficient, mode):
    g = norm_coefficient * x + g
    v = alpha * v + (beta if t > 0 else 1) * g
    return x - r * (v if mode == "standard" else g + alpha * v), v


# Of the schemas.
DEFAULTS = {
    "Adam": dict(alpha=0.9, beta=0.999, epsilon=1e-6, norm_coefficient=0.0, norm_coefficient_post=0.0),
    "Adagrad": dict(epsilon=1e-6, decay_factor=0.0, norm_coefficient=0.0),
    "Momentum": {},
}
FORMULAS = {"Adam": adam, "Adagrad": adagrad, "Momentum": momentum}


def constants(operator, attributes):
    """Attributes with their defaults; they are single precision in a file."""
    whole = DEFAULTS[operator] | attributes
    return {name: value if isinstance(value, str) else float(np.float32(value)) for name, value in whole.items()}


def run(path, feeds):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(None, {name: np.asarray(value) for name, value in feeds.items()})
    return dict(zip([output.name for output in session.get_outputs()], got))


def lowered(proto, folder):
    path, refusal = suite.lower(proto, folder)
    assert refusal is None, refusal
    assert DOMAIN not in {node.domain for node in onnx.load(path).graph.node}
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return path


def node_test(name):
    """The model, what it is fed, and what it gives."""
    folder = suite.DATA / "node" / f"test_{name}"
    proto = onnx.load(folder / "model.onnx")

    def tensors(kind, infos):
        paths = [folder / f"test_data_set_0/{kind}_{i}.pb" for i in range(len(infos))]
        return {info.name: np.asarray(suite.tensor(path)) for info, path in zip(infos, paths)}

    return proto, tensors("input", proto.graph.input), tensors("output", proto.graph.output)


@pytest.mark.parametrize("name", NODE_TESTS)
def test_of_the_onnx_package(name, tmp_path):
    proto, feeds, outputs = node_test(name)
    if name == "adam_multiple":
        # Its outputs were computed with this epsilon, which its node lacks: by the specification, the default is meant then.
        (node,) = proto.graph.node
        assert "epsilon" not in {attribute.name for attribute in node.attribute}
        node.attribute.append(helper.make_attribute("epsilon", 1e-2))
    got = run(lowered(proto, tmp_path), feeds)
    for name, expected in outputs.items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, strict=True)


@pytest.mark.parametrize("name", NODE_TESTS)
def test_as_the_reference_evaluator(name, tmp_path):
    """The models of the onnx package as they are."""
    proto, feeds, _ = node_test(name)
    got = run(lowered(proto, tmp_path), feeds)
    for info, expected in zip(proto.graph.output, ReferenceEvaluator(proto).run(None, feeds), strict=True):
        np.testing.assert_allclose(got[info.name], expected, rtol=1e-6)


def values(kinds, shapes, dtypes, seed=0):
    """By name: what an operator is fed for tensors of these shapes."""
    generator = np.random.default_rng(seed)
    fed = {}
    for kind in kinds:
        for i, (shape, dtype) in enumerate(zip(shapes, dtypes)):
            value = np.asarray(generator.standard_normal(shape))
            # Squares are what H adds up.
            fed[f"{kind}{i}"] = np.asarray(value**2 if kind == "H" else value, dtype)
    return fed


def model(operator, attributes, fed, rate=np.float32, opset=17, scalar_shape=()):
    """One optimizer node; what it makes of X0 is called X0.next."""
    outputs = [f"{name}.next" for name in fed if name[0] != "G"]
    node = helper.make_node(operator, ["R", "T", *fed], outputs, name="update", domain=DOMAIN, **attributes)
    info, element = helper.make_tensor_value_info, lambda dtype: helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [info("R", element(rate), scalar_shape), info("T", TensorProto.INT64, scalar_shape)]
    inputs += [info(name, element(value.dtype), value.shape) for name, value in fed.items()]
    results = [info(f"{name}.next", element(value.dtype), value.shape) for name, value in fed.items() if name[0] != "G"]
    graph = helper.make_graph([node], "graph", inputs, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)], ir_version=8)


def check(path, operator, attributes, fed, rate, count, scalar_shape=()):
    got = run(path, {"R": np.full(scalar_shape, rate), "T": np.full(scalar_shape, count, np.int64), **fed})
    tensors = len(fed) // len(GROUPS[operator])
    for i in range(tensors):
        inputs = [fed[f"{kind}{i}"].astype(np.float64) for kind in GROUPS[operator]]
        expected = FORMULAS[operator](np.float64(rate), count, *inputs, **constants(operator, attributes))
        dtype = fed[f"X{i}"].dtype
        for kind, value in zip(GROUPS[operator].replace("G", ""), expected, strict=True):
            result = got[f"{kind}{i}.next"]
            assert result.dtype == dtype
            tolerance = 1e-6 if dtype == np.float32 else 1e-14
            np.testing.assert_allclose(result, value, rtol=tolerance, atol=tolerance, err_msg=f"{kind}{i} at T = {count}")


@pytest.mark.parametrize("operator, attributes", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_and_later_steps(operator, attributes, dtype, tmp_path):
    """Three tensors of different shapes, against the formulas of the specification in double precision."""
    fed = values(GROUPS[operator], [(3, 4), (5,), ()], [dtype] * 3)
    path = lowered(model(operator, attributes, fed, rate=dtype), tmp_path)
    for count in (0, 1, 2, 1000):
        check(path, operator, attributes, fed, dtype(0.1), count)


@pytest.mark.parametrize("operator, attributes", CASES)
@pytest.mark.parametrize("opset", [9, 12, 13, 21])
def test_tensors_of_two_types(operator, attributes, opset, tmp_path):
    """The types of R and of each tensor are independent of each other; R and T may be tensors of one element."""
    fed = values(GROUPS[operator], [(3, 4), (2,)], [np.float64, np.float32])
    path = lowered(model(operator, attributes, fed, np.float64, opset, scalar_shape=(1,)), tmp_path)
    for count in (0, 3):
        check(path, operator, attributes, fed, np.float64(0.1), count, scalar_shape=(1,))


@pytest.mark.parametrize("operator", GROUPS)
def test_results_that_nobody_wants(operator, tmp_path):
    """Their names are empty; the others are there."""
    attributes = ATTRIBUTES[operator][1]
    fed = values(GROUPS[operator], [(3,), (2,)], [np.float32] * 2)
    whole = model(operator, attributes, fed)
    expected = run(lowered(whole, tmp_path), {"R": np.float32(0.1), "T": np.int64(2), **fed})
    (node,) = whole.graph.node
    node.output[0] = node.output[3] = ""
    del whole.graph.output[3], whole.graph.output[0]
    got = run(lowered(whole, tmp_path), {"R": np.float32(0.1), "T": np.int64(2), **fed})
    assert got.keys() == {name for name in node.output if name}
    for name, value in got.items():
        np.testing.assert_array_equal(value, expected[name])


def step_model(operator, attributes):
    """A step of a linear model y = x W with a squared error: loss, Gradient, optimizer."""
    node, info = helper.make_node, helper.make_tensor_value_info
    states = GROUPS[operator][2:]
    new = ["X.next", *(f"{state}.next" for state in states)]
    nodes = [
        node("MatMul", ["x", "X"], ["y"]),
        node("Sub", ["y", "target"], ["error"]),
        node("Mul", ["error", "error"], ["square"]),
        node("ReduceSum", ["square"], ["loss"], keepdims=0),
        node("Gradient", ["X", "x", "target"], ["G"], domain=DOMAIN, xs=["X"], zs=["x", "target"], y="loss"),
        node(operator, ["R", "T", "X", "G", *states], new, domain=DOMAIN, **attributes),
    ]
    inputs = [info("R", TensorProto.FLOAT, []), info("T", TensorProto.INT64, [])]
    inputs += [info("x", TensorProto.FLOAT, ["N", 4]), info("target", TensorProto.FLOAT, ["N", 3])]
    inputs += [info(name, TensorProto.FLOAT, [4, 3]) for name in ("X", *states)]
    outputs = [info("loss", TensorProto.FLOAT, []), *(info(name, TensorProto.FLOAT, [4, 3]) for name in new)]
    graph = helper.make_graph(nodes, "step", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)], ir_version=8)


@pytest.mark.parametrize("operator", GROUPS)
def test_steps_with_gradient_and_optimizer(operator, tmp_path):
    """Ten steps of a graph that holds both, against the same in NumPy."""
    attributes = ATTRIBUTES[operator][1]
    path = lowered(step_model(operator, attributes), tmp_path)
    generator = np.random.default_rng(1)
    x, target = (generator.standard_normal(shape).astype(np.float32) for shape in ((6, 4), (6, 3)))
    carried = {name: np.zeros((4, 3), np.float32) for name in ("X", *GROUPS[operator][2:])}
    expected = {name: value.astype(np.float64) for name, value in carried.items()}
    for count in range(10):
        feeds = {"R": np.float32(0.02), "T": np.int64(count), "x": x, "target": target, **carried}
        got = run(path, feeds)
        loss, carried = got["loss"], {name: got[f"{name}.next"] for name in carried}
        error = x.astype(np.float64) @ expected["X"] - target
        np.testing.assert_allclose(loss, (error**2).sum(), rtol=1e-5)
        inputs = [expected["X"], 2 * x.astype(np.float64).T @ error, *list(expected.values())[1:]]
        updated = FORMULAS[operator](np.float64(np.float32(0.02)), count, *inputs, **constants(operator, attributes))
        expected = dict(zip(expected, updated))
    for name, value in carried.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_products_of_a_step_are_rewritten(tmp_path):
    """The optimizer says that G is the gradient of X, which is no output of the graph."""
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(step_model("Adam", {}), before)
    command = [os.environ["ISAAC_REWRITE"], before, "-o", after, "--lambda", "1", "--expect", "1"]
    subprocess.run(command, check=True)
    nodes = onnx.load(after).graph.node
    assert [node.domain for node in nodes if node.domain] == ["ai.isaac"]


def test_the_algorithm_of_a_training_info(tmp_path):
    """Its optimizer is written out as well; the inference graph stays."""
    attributes = ATTRIBUTES["Momentum"][1]
    fed = values("XGV", [(3, 4)], [np.float32])
    algorithm = model("Momentum", attributes, fed)
    info = helper.make_tensor_value_info
    inference = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "inference",
        [info("x", TensorProto.FLOAT, [2])],
        [info("y", TensorProto.FLOAT, [2])],
    )
    proto = helper.make_model(inference, opset_imports=algorithm.opset_import, ir_version=8)
    proto.training_info.append(helper.make_training_info(algorithm.graph, [], None, None))
    path, refusal = suite.lower(proto, tmp_path)
    assert refusal is None, refusal
    after = onnx.load(path)
    assert after.graph == inference
    alone = tmp_path / "algorithm.onnx"
    onnx.save(helper.make_model(after.training_info[0].algorithm, opset_imports=after.opset_import, ir_version=8), alone)
    for count in (0, 2):
        check(alone, "Momentum", attributes, fed, np.float32(0.1), count)


def changed(change, operator="Adam"):
    attributes = ATTRIBUTES[operator][1]
    proto = model(operator, attributes, values(GROUPS[operator], [(2, 3), (3,)], [np.float32] * 2))
    change(proto.graph, proto.graph.node[0])
    return proto


def without(name):
    def change(_, node):
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)

    return change


def having(name, value):
    def change(graph, node):
        without(name)(graph, node)
        node.attribute.append(helper.make_attribute(name, value))

    return change


def typed(position, element, shape):
    """Of the inputs R, T, X0, X1, G0, …"""

    def change(graph, _):
        graph.input[position].CopyFrom(helper.make_tensor_value_info(graph.input[position].name, element, shape))

    return change


MALFORMED = {
    "no tensors": ("Adam", lambda _, node: node.input.__delitem__(slice(2, None)), "behind R and T it has 0 inputs"),
    "no R": ("Adam", lambda _, node: node.input.__delitem__(slice(0, None)), "behind R and T it has 0 inputs"),
    "a tensor without state": ("Adam", lambda _, node: node.input.pop(), "7 inputs, and not as many of each of X, G, V, H"),
    "too few outputs": ("Adagrad", lambda graph, node: (graph.output.pop(), node.output.pop()), "updates 2 tensors in 3 outputs, 4 are expected"),
    "left out T": ("Adam", lambda _, node: node.input.__setitem__(1, ""), "its T (input 1) is missing"),
    "left out gradient": ("Adam", lambda _, node: node.input.__setitem__(5, ""), "its G_2 (input 5) is missing"),
    "no alpha": ("Momentum", without("alpha"), "its attribute alpha is missing"),
    "no norm_coefficient": ("Momentum", without("norm_coefficient"), "its attribute norm_coefficient is missing"),
    "no mode": ("Momentum", without("mode"), "its attribute mode is missing"),
    "mode": ("Momentum", having("mode", "heavy"), "its mode is 'heavy', which is none of standard, nesterov"),
    "mode of numbers": ("Momentum", having("mode", 1), "its mode is ''"),
    "integer": ("Adam", having("alpha", 1), "its attribute alpha is no float"),
    "unknown attribute": ("Adagrad", having("alpha", 0.5), "it has no attribute alpha"),
    "float T": ("Adam", typed(1, TensorProto.FLOAT, []), "its T is 'T' (float[]), which is not int64"),
    "integer R": ("Adam", typed(0, TensorProto.INT64, []), "its R is 'R' (int64[]), which is not float or double"),
    "many rates": ("Adam", typed(0, TensorProto.FLOAT, [2]), "its R is 'R' (float[2]), which is no scalar"),
    "half": ("Adam", typed(2, TensorProto.FLOAT16, [2, 3]), "'X0' (float16[2, 3]) is not of float or double"),
    "two types": ("Adam", typed(4, TensorProto.DOUBLE, [2, 3]), "'X0' (float[2, 3]) and 'G0' (double[2, 3]) are not of one"),
    "shapes": ("Adam", typed(4, TensorProto.FLOAT, [2, 4]), "the shapes of 'X0' (float[2, 3]) and 'G0' (float[2, 4]) do not fit"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_nodes_are_named(what, tmp_path):
    operator, change, message = MALFORMED[what]
    path, refusal = suite.lower(changed(change, operator), tmp_path)
    assert path is None
    assert f"{DOMAIN}::{operator} 'update': " in refusal and message in refusal


@pytest.mark.parametrize("domain, version, message", [("", 8, "imports 8"), (DOMAIN, 2, "version 2 of its domain")])
def test_versions_that_are_not_known(domain, version, message, tmp_path):
    proto = changed(lambda graph, node: None)
    next(entry for entry in proto.opset_import if entry.domain == domain).version = version
    path, refusal = suite.lower(proto, tmp_path)
    assert path is None
    assert "Adam 'update': " in refusal and message in refusal
