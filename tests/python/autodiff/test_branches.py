"""If, Loop and Scan: their gradients against central differences in double precision, or of functions in NumPy."""

import numpy as np
import pytest
import suite
from onnx import TensorProto, helper, numpy_helper
from test_written_out import array, assert_right, case


def result(name):
    return helper.make_tensor_value_info(name, TensorProto.DOUBLE, None)


def branch(operator, name, constant):
    """x times, or plus, a constant of the branch, squared."""
    nodes = [helper.make_node(operator, ["x", "k"], ["t"]), helper.make_node("Mul", ["t", "t"], ["r"])]
    return helper.make_graph(nodes, name, [], [result("r")], [numpy_helper.from_array(constant, "k")])


def choice(condition, then=None, other=None):
    then, other = then or branch("Mul", "then", array(3, 4)), other or branch("Add", "else", array(3, 4))
    return helper.make_node("If", [condition], ["y"], then_branch=then, else_branch=other)


def is_positive(x, condition="c"):
    """Nodes that tell whether the sum of x is positive."""
    return [
        helper.make_node("ReduceSum", [x], [f"sum of {x}"], keepdims=0),
        helper.make_node("Greater", [f"sum of {x}", "zero"], [condition]),
    ]


ZERO = {"zero": np.float64(0)}
SIGNS = pytest.mark.parametrize("sign", [1, -1])


@pytest.mark.parametrize("condition", [True, False])
def test_constant_condition(condition):
    assert_right(case([choice("c")], {"x": array(3, 4)}, constants={"c": np.array(condition)}))


@pytest.mark.parametrize("size", [3, 5])
def test_condition_on_sizes(size):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Equal", ["rows", "size"], ["c"]),
        choice("c"),
    ]
    assert_right(case(nodes, {"x": array(3, 4)}, constants={"zero": np.array(0), "size": np.array(size)}))


@SIGNS
def test_condition_on_data(sign):
    assert_right(case([*is_positive("x"), choice("c")], {"x": sign * abs(array(3, 4))}, constants=ZERO))


@SIGNS
def test_values_that_are_read_inside_and_outside(sign):
    """A weight that both branches and the graph around read, one that a single branch reads, and constants of the graph around."""
    then = helper.make_graph(
        [
            helper.make_node("Slice", ["t", "from", "to", "axes"], ["part"]),
            helper.make_node("MatMul", ["part", "w"], ["r"]),
        ],
        "then",
        [],
        [result("r")],
    )
    other = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["w"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "v"], ["scaled"]),
            helper.make_node("Exp", ["scaled"], ["r"]),
        ],
        "else",
        [],
        [result("r")],
    )
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        *is_positive("x"),
        helper.make_node("If", ["c"], ["chosen"], then_branch=then, else_branch=other),
        helper.make_node("ReduceSum", ["w"], ["total"], keepdims=0),
        helper.make_node("Mul", ["chosen", "total"], ["y"]),
    ]
    feeds = {"x": sign * abs(array(3, 4)), "w": array(2, 5), "v": array(3, 5)}
    constants = ZERO | {"from": np.array([1]), "to": np.array([3]), "axes": np.array([1])}
    assert_right(case(nodes, feeds, constants=constants))


@SIGNS
def test_a_branch_in_a_branch(sign):
    inner = choice("c2")
    inner.output[0] = "r0"
    then = helper.make_graph(
        [*is_positive("x", "c2"), inner, helper.make_node("Mul", ["r0", "x"], ["r1"])], "outer then", [], [result("r1")]
    )
    nodes = [*is_positive("z"), choice("c", then)]
    assert_right(case(nodes, {"x": sign * abs(array(3, 4)), "z": abs(array(2))}, ["x"], constants=ZERO))


@SIGNS
def test_two_results(sign):
    """Of which a branch gives a value of its own, and the other one that nothing differentiable makes."""
    then = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Sin", ["x"], ["b"])], "then", [], [result("a"), result("b")]
    )
    other = helper.make_graph(
        [helper.make_node("Sign", ["x"], ["a"]), helper.make_node("Cos", ["x"], ["b"])], "else", [], [result("a"), result("b")]
    )
    nodes = [
        *is_positive("x"),
        helper.make_node("If", ["c"], ["first", "second"], then_branch=then, else_branch=other),
        helper.make_node("Mul", ["first", "second"], ["y"]),
    ]
    assert_right(case(nodes, {"x": sign * abs(array(3, 4))}, constants=ZERO))


def test_a_function_that_a_branch_calls():
    function = helper.make_function("my", "square", ["a"], ["b"], [helper.make_node("Mul", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)])
    then = helper.make_graph([helper.make_node("square", ["x"], ["r"], domain="my")], "then", [], [result("r")])
    tested = case([*is_positive("x"), choice("c", then)], {"x": abs(array(3, 4))}, constants=ZERO, functions=[function], domains=["my"])
    assert_right(tested)


@pytest.mark.parametrize(
    "operator, why", [("DFT", "there is no gradient rule for this operator"), ("RandomNormalLike", "draws random numbers")]
)
def test_what_has_no_gradient_in_a_branch_is_named(operator, why, tmp_path):
    nodes = [helper.make_node(operator, ["x"], ["t"], name="culprit"), helper.make_node("Mul", ["t", "x"], ["r"])]
    then = helper.make_graph(nodes, "then", [], [result("r")])
    tested = case([*is_positive("x"), choice("c", then)], {"x": array(3, 4)}, constants=ZERO)
    path, refusal = suite.lower(suite.with_gradient(tested, array(3, 4)), tmp_path)
    assert path is None
    assert "If 'y': in its then_branch" in refusal and f"{operator} 'y/culprit'" in refusal and why in refusal


def scalar(name, element):
    return helper.make_tensor_value_info(name, element, [])


def loop(go_on=("Identity", "go"), outputs=("last", "all")):
    """v becomes tanh(v) · w + i, and what v · w was is stacked."""
    operator, given = go_on
    attributes = {"Constant": {"value": numpy_helper.from_array(np.array(True))}, "Cast": {"to": TensorProto.BOOL}}
    nodes = [
        helper.make_node(operator, [given] if given else [], ["go on"], **attributes.get(operator, {})),
        helper.make_node("Tanh", ["v"], ["t"]),
        helper.make_node("Mul", ["t", "w"], ["p"]),
        helper.make_node("CastLike", ["i", "p"], ["number"]),
        helper.make_node("Add", ["p", "number"], ["next"]),
        helper.make_node("Mul", ["v", "w"], ["seen"]),
    ]
    inputs = [scalar("i", TensorProto.INT64), scalar("go", TensorProto.BOOL), result("v")]
    body = helper.make_graph(nodes, "body", inputs, [scalar("go on", TensorProto.BOOL), result("next"), result("seen")])
    return helper.make_node("Loop", ["times", "", "x"], list(outputs), body=body)


def looped(x, w, times):
    seen = []
    for i in range(times):
        seen.append(x * w)
        x = np.tanh(x) * w + i
    return (np.stack(seen) * x).sum(axis=0)


def assert_gradients(tested, function, folder):
    """Compares with central differences of a function."""
    weights = array(*function(**tested.feeds).shape)
    path, refusal = suite.lower(suite.with_gradient(tested, weights), folder)
    assert refusal is None, refusal
    for (name, value), got in zip(tested.feeds.items(), suite.in_runtime(path, tested.feeds)):
        expected = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            moved = np.zeros_like(value)
            moved[index] = suite.STEP
            right, left = (function(**{**tested.feeds, name: v}) for v in (value + moved, value - moved))
            expected[index] = ((right - left) * weights).sum() / (2 * suite.STEP)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


TAIL = [helper.make_node("Mul", ["all", "last"], ["p"]), helper.make_node("ReduceSum", ["p", "first"], ["y"], keepdims=0)]
FIRST = {"first": np.array([0])}


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("go_on", [("Identity", "go"), ("Cast", "go"), ("Constant", None)])
def test_loop(go_on, times, tmp_path):
    feeds = {"x": array(3, 4), "w": array(3, 4)}
    tested = case([loop(go_on), *TAIL], feeds, constants={"times": np.array(times), **FIRST})
    assert_gradients(tested, lambda x, w: looped(x, w, times), tmp_path)


@pytest.mark.parametrize(
    "times, go_on, why",
    [
        (None, ("Identity", "go"), "how often it runs its body depends on the data"),
        (3, ("Not", "go"), "whether it goes on depends on the data"),
        (257, ("Identity", "go"), "it runs its body 257 times, and from 1 to 256 can be written out"),
    ],
)
def test_loops_that_are_refused(times, go_on, why, tmp_path):
    feeds = {"x": array(3, 4), "w": array(3, 4)}
    constants = FIRST if times is None else FIRST | {"times": np.array(times)}
    tested = case([loop(go_on), *TAIL], feeds, constants=constants)
    if times is None:
        tested.model.graph.input.append(scalar("times", TensorProto.INT64))
    path, refusal = suite.lower(suite.with_gradient(tested, array(3, 4)), tmp_path)
    assert path is None and "Loop 'last'" in refusal and why in refusal


def scan(axis, is_reverse, outputs=("last", "all")):
    """s becomes tanh(s · w + x), for each x along an axis."""
    nodes = [
        helper.make_node("Mul", ["s", "w"], ["p"]),
        helper.make_node("Add", ["p", "part"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("Exp", ["next"], ["seen"]),
    ]
    body = helper.make_graph(nodes, "body", [result("s"), result("part")], [result("next"), result("seen")])
    directions = {f"scan_{kind}_directions": [int(is_reverse)] for kind in ("input", "output")}
    axes = {"scan_input_axes": [axis], "scan_output_axes": [0]}
    return helper.make_node("Scan", ["start", "x"], list(outputs), body=body, num_scan_inputs=1, **axes, **directions)


def scanned(x, start, w, axis, is_reverse):
    state, seen = start, []
    steps = np.moveaxis(x, axis, 0)
    for part in steps[::-1] if is_reverse else steps:
        state = np.tanh(state * w + part)
        seen.append(np.exp(state))
    return (np.stack(seen[::-1] if is_reverse else seen) * state).sum(axis=0)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("is_reverse", [False, True])
def test_scan(is_reverse, axis, tmp_path):
    feeds = {"x": array(3, 3), "start": array(3), "w": array(3)}
    tested = case([scan(axis, is_reverse), *TAIL], feeds, constants=FIRST)
    assert_gradients(tested, lambda **values: scanned(**values, axis=axis, is_reverse=is_reverse), tmp_path)


def test_a_scan_of_unknown_length_is_refused(tmp_path):
    feeds = {"x": array(3, 3), "start": array(3), "w": array(3)}
    tested = case([scan(0, False), *TAIL], feeds, constants=FIRST)
    tested.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    path, refusal = suite.lower(suite.with_gradient(tested, array(3)), tmp_path)
    assert path is None and "Scan 'last': how many steps it makes depends on sizes" in refusal
