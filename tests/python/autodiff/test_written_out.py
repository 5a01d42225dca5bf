"""Operators that are made of others, and those that the node suite has no case of.

The models are compared with central differences of onnx's reference evaluator, as those of the node suite are.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
import suite
from onnx import TensorProto, helper, numpy_helper

GENERATOR = np.random.default_rng(3)


def array(*shape):
    return GENERATOR.uniform(-1, 1, shape)


def case(nodes, feeds, wanted=None, constants=None, functions=(), opset=17, output="y", domains=()):
    """A model of these nodes, and the gradient with respect to `wanted` (all feeds unless told)."""
    info = helper.make_tensor_value_info
    element = helper.np_dtype_to_tensor_dtype(next(iter(feeds.values())).dtype)
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name, element, value.shape) for name, value in feeds.items()],
        [info(output, element, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8 if opset < 22 else 10)
    return suite.Case(nodes[0].op_type, nodes[0].op_type, model, feeds, wanted or list(feeds), graph.output[0])


def assert_right(tested):
    result = suite.measure(tested)
    assert not isinstance(result, str), result
    in_float, in_double = result
    assert in_float <= suite.TOLERANCE
    assert in_double <= suite.TOLERANCE_IN_DOUBLE


def assert_refused(tested, why):
    result = suite.measure(tested)
    assert isinstance(result, str) and why in result, result


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def weights(name, directions, inputs, hidden, gates):
    shapes = {"W": (gates * hidden, inputs), "R": (gates * hidden, hidden), "B": (2 * gates * hidden,)}
    return {f"{name}.{key}": array(directions, *shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("opset", [14, 17, 22])
@pytest.mark.parametrize(
    "operator, attributes",
    [
        ("RNN", {}),
        ("GRU", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("LSTM", {}),
    ],
)
def test_two_layers_in_both_directions(operator, attributes, opset):
    """As PyTorch exports them: the directions of the first layer side by side are the input of the second."""
    steps, batch, inputs, hidden = 4, 2, 3, 5
    gates = GATES[operator]
    feeds = {"x": array(steps, batch, inputs)}
    feeds |= weights("first", 2, inputs, hidden, gates) | weights("second", 2, 2 * hidden, hidden, gates)
    states = ["h"] if operator != "LSTM" else ["h", "c"]
    feeds |= {state: array(2, batch, hidden) for state in states}

    def layer(x, name, initial, outputs):
        inputs = [x, f"{name}.W", f"{name}.R", f"{name}.B", "", *initial]
        return helper.make_node(operator, inputs, outputs, hidden_size=hidden, direction="bidirectional", **attributes)

    nodes = [
        layer("x", "first", states, ["first"]),
        helper.make_node("Transpose", ["first"], ["by batch"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["by batch", "shape"], ["second.x"]),
        layer("second.x", "second", [], ["all", "last", "cell"][: 1 + len(states)]),
        helper.make_node("ReduceSum", ["all", "first axis"], ["sum"], keepdims=0),
        helper.make_node("Sum", ["sum", "last", *(["cell"] if operator == "LSTM" else [])], ["y"]),
    ]
    constants = {"shape": np.array([0, 0, -1]), "first axis": np.array([0])}
    assert_right(case(nodes, feeds, constants=constants, opset=opset))


@pytest.mark.parametrize(
    "operator, activations",
    [("RNN", ["Relu", "Sigmoid"]), ("GRU", ["Sigmoid", "Softsign", "Relu", "Tanh"]), ("LSTM", ["Sigmoid", "Softsign", "Tanh", "Sigmoid", "Tanh", "Relu"])],
)
def test_activations(operator, activations, tmp_path):
    """Which onnx's reference evaluator does not know: the operator of the runtime has the same result as what is written out."""
    feeds = {"x": array(4, 2, 3), **weights("r", 2, 3, 5, GATES[operator])}
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    attributes = {"hidden_size": 5, "direction": "bidirectional", "activations": activations}
    tested = case([helper.make_node(operator, list(feeds), ["y"], **attributes)], feeds)
    model = suite.with_gradient(tested, np.ones((4, 2, 2, 5)))
    model.graph.output.append(tested.output)
    path, refusal = suite.lower(model, tmp_path)
    assert refusal is None, refusal
    assert operator not in {node.op_type for node in onnx.load(path).graph.node}
    expected, got = (
        onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(["y"], feeds)[0]
        for source in (tested.model.SerializeToString(), path)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("operator", list(GATES))
def test_batch_first(operator, direction):
    feeds = {"x": array(2, 4, 3), **weights("r", 1, 3, 5, GATES[operator])}
    attributes = {"hidden_size": 5, "direction": direction, "layout": 1}
    nodes = [
        helper.make_node(operator, list(feeds), ["all", "last"], **attributes),
        helper.make_node("Unsqueeze", ["last", "second axis"], ["row"]),
        helper.make_node("Mul", ["all", "row"], ["y"]),
    ]
    assert_right(case(nodes, feeds, constants={"second axis": np.array([1])}))


def test_steps_that_are_not_known_are_refused():
    feeds = {"x": array(4, 2, 3), **weights("r", 1, 3, 5, 4)}
    tested = case([helper.make_node("LSTM", list(feeds), ["y"], hidden_size=5)], feeds)
    tested.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert_refused(tested, "its number of steps is not known")


def test_steps_of_a_part_of_the_batch_are_refused():
    feeds = {"x": array(4, 2, 3), **weights("r", 1, 3, 5, 4)}
    node = helper.make_node("LSTM", [*feeds, "lengths"], ["y"], hidden_size=5)
    assert_right(case([node], feeds, constants={"lengths": np.array([4, 4], np.int32)}))
    assert_refused(case([node], feeds, constants={"lengths": np.array([4, 3], np.int32)}), "may be shorter")


@pytest.mark.parametrize("split", [None, np.array(2), np.array([3, 1])])
def test_chunks(split):
    """chunk() and split() as PyTorch's newer exporter writes them."""
    inputs = ["x"] if split is None else ["x", "split"]
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("SplitToSequence", ["t", *inputs[1:]], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", "last"], ["a"]),
        helper.make_node("SequenceAt", ["parts", "first"], ["b"]),
        helper.make_node("Concat", ["a", "b", "a"], ["y"], axis=1),
    ]
    constants = {"first": np.array(0), "last": np.array(-1), **({} if split is None else {"split": split})}
    assert_right(case(nodes, {"x": array(3, 4)}, constants=constants))


@pytest.mark.parametrize("new_axis", [0, 1])
def test_sequences_that_are_built(new_axis):
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "z"], ["s"]),
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("SequenceInsert", ["s", "e", "one"], ["s2"]),
        helper.make_node("SequenceErase", ["s2", "one"], ["s3"]),
        helper.make_node("SequenceInsert", ["s3", "e"], ["s4"]),
        helper.make_node("SequenceLength", ["s4"], ["n"]),
        helper.make_node("Cast", ["n"], ["length"], to=TensorProto.DOUBLE),
        helper.make_node("ConcatFromSequence", ["s4"], ["c"], axis=1, new_axis=new_axis),
        helper.make_node("Mul", ["c", "length"], ["y"]),
    ]
    assert_right(case(nodes, {"x": array(3, 4), "z": array(3, 4)}, constants={"one": np.array(1)}))


def test_a_place_in_a_sequence_that_depends_on_the_data_is_refused():
    nodes = [
        helper.make_node("ArgMax", ["z"], ["at"], axis=0, keepdims=0),
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0),
        helper.make_node("SequenceAt", ["parts", "at"], ["y"]),
    ]
    assert_refused(case(nodes, {"x": array(3, 4), "z": array(3)}, ["x"]), "the elements of its sequence")


def test_calls_of_functions():
    """A function that calls another one twice, with an attribute, and a branch in it."""
    inner = helper.make_function(
        "my",
        "scaled",
        ["v", "shift"],
        ["r"],
        [
            helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
            helper.make_node("Constant", [], ["float"]),
            helper.make_node("CastLike", ["float", "v"], ["slope"]),
            helper.make_node("Mul", ["v", "slope"], ["t"]),
            helper.make_node("If", ["yes"], ["u"]),
            helper.make_node("Add", ["u", "shift"], ["r"]),
        ],
        [helper.make_opsetid("", 17)],
        ["slope"],
    )
    inner.node[1].attribute.add(name="value_float", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    choose = inner.node[4]
    result = helper.make_tensor_value_info("r of branch", TensorProto.DOUBLE, None)
    for name, operator in (("then_branch", "Exp"), ("else_branch", "Neg")):
        graph = helper.make_graph([helper.make_node(operator, ["t"], ["r of branch"])], name, [], [result])
        choose.attribute.append(helper.make_attribute(name, graph))
    outer = helper.make_function(
        "my",
        "twice",
        ["a", "b"],
        ["c"],
        [
            helper.make_node("scaled", ["a", "b"], ["t"], domain="my", slope=0.5),
            helper.make_node("scaled", ["t", "a"], ["c"], domain="my", slope=0.25),
        ],
        [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)],
    )
    nodes = [helper.make_node("twice", ["x", "z"], ["t"], domain="my"), helper.make_node("twice", ["z", "t"], ["y"], domain="my")]
    feeds = {"x": array(3, 4), "z": array(3, 4)}
    assert_right(case(nodes, feeds, functions=[inner, outer], domains=["my"]))


def test_a_function_that_calls_itself_is_refused(tmp_path):
    itself = helper.make_node("again", ["a"], ["b"], domain="my")
    function = helper.make_function("my", "again", ["a"], ["b"], [itself], [helper.make_opsetid("my", 1)])
    tested = case([helper.make_node("again", ["x"], ["y"], domain="my")], {"x": array(3)}, functions=[function], domains=["my"])
    path, refusal = suite.lower(suite.with_gradient(tested, array(3)), tmp_path)
    assert path is None and "goes deeper" in refusal


@pytest.mark.parametrize(
    "shapes, attributes, mask",
    [
        ([(2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 6)], {}, None),
        ([(2, 4, 24), (2, 5, 24), (2, 5, 12)], {"q_num_heads": 3, "kv_num_heads": 3, "scale": 0.7}, None),
        ([(2, 4, 24), (2, 4, 12), (2, 4, 8)], {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}, None),
        ([(2, 6, 4, 8), (2, 2, 4, 8), (2, 2, 4, 8)], {"softcap": 2.0}, "float"),
        ([(2, 3, 4, 8), (2, 3, 4, 8), (2, 3, 4, 8)], {"softmax_precision": TensorProto.DOUBLE}, "bool"),
    ],
)
def test_attention(shapes, attributes, mask):
    element = np.float32 if "softmax_precision" in attributes else np.float64
    feeds = dict(zip("qkv", (array(*shape).astype(element) for shape in shapes)))
    inputs, constants = list(feeds), {}
    if mask == "float":
        feeds["mask"] = array(4, 4)
        inputs.append("mask")
    elif mask == "bool":
        constants = {"mask": np.tri(4, dtype=bool)}
        inputs.append("mask")
    assert_right(case([helper.make_node("Attention", inputs, ["y"], **attributes)], feeds, constants=constants, opset=23))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("shape, attributes", [((2, 3, 4, 8), {}), ((2, 4, 24), {"num_heads": 3, "rotary_embedding_dim": 4})])
def test_rotary_embedding(shape, attributes, interleaved):
    width = attributes.get("rotary_embedding_dim", 8) // 2
    angles = array(10, width).astype(np.float32)
    constants = {"cos": np.cos(angles), "sin": np.sin(angles), "at": np.array([[1, 2, 3, 9]] * 2)}
    node = helper.make_node("RotaryEmbedding", ["x", *constants], ["y"], interleaved=interleaved, **attributes)
    assert_right(case([node], {"x": array(*shape).astype(np.float32)}, constants=constants, opset=23))


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("bsd,dhk->bshk", [(2, 3, 4), (4, 2, 5)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 5, 4, 2)]),
        ("i...,i->...", [(3, 2, 4), (3,)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
        ("ij,kl->k", [(2, 3), (4, 2)]),
        ("iij->ij", [(3, 3, 2)]),
        ("iji,j", [(3, 2, 3), (2,)]),
        ("bi,bi", [(2, 3), (2, 3)]),
    ],
)
def test_einsum(equation, shapes):
    feeds = {f"x{i}": array(*shape) for i, shape in enumerate(shapes)}
    assert_right(case([helper.make_node("Einsum", list(feeds), ["y"], equation=equation)], feeds))


@pytest.mark.parametrize(
    "equation, shapes, is_product",
    [
        ("bsd,dhk->bshk", [("N", "S", 4), (4, 2, 5)], True),
        ("bshk,hkd->bsd", [("N", "S", 2, 5), (2, 5, 4)], True),
        ("dh,bsd->bsh", [(4, 3), ("N", "S", 4)], True),
        ("bihd,bjhd->bhij", [("N", "S", 2, 4), ("N", "T", 2, 4)], True),
        ("bhij,bjhd->bihd", [("N", 2, "S", "T"), ("N", "T", 2, 4)], True),
        ("kab,kbc->ka", [(2, 3, 4), (2, 4, 5)], False),
        ("nij,jkl->nikl", [("N", "S", "T"), ("T", "K", "L")], False),
        ("i,i", [("N",), ("N",)], True),
        ("eabi,eio->abeo", [(2, 3, 4, 5), (2, 5, 6)], True),
    ],
)
def test_einsum_as_a_product_of_matrices(equation, shapes, is_product, tmp_path):
    sizes = {"N": 2, "S": 3, "T": 5, "K": 2, "L": 4}
    feeds = {f"x{i}": array(*(sizes.get(size, size) for size in shape)) for i, shape in enumerate(shapes)}
    tested = case([helper.make_node("Einsum", list(feeds), ["y"], equation=equation)], feeds)
    for value, shape in zip(tested.model.graph.input, shapes):
        for dim, size in zip(value.type.tensor_type.shape.dim, shape):
            if isinstance(size, str):
                dim.dim_param = size
    assert_right(tested)
    result = np.einsum(equation, *feeds.values())
    path, _ = suite.lower(suite.with_gradient(tested, result), tmp_path)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert ("MatMul" in operators, "Einsum" in operators) == (is_product, not is_product)


def test_weights_that_the_graph_stacks():
    """Those of two directions, by Concat, as PyTorch exports them."""
    parts = {f"{key}{i}": array(1, *shape) for key, shape in {"W": (5, 3), "R": (5, 5)}.items() for i in range(2)}
    nodes = [
        helper.make_node("Concat", ["W0", "W1"], ["W"], axis=0),
        helper.make_node("Concat", ["R0", "R1"], ["R"], axis=0),
        helper.make_node("RNN", ["x", "W", "R"], ["y"], hidden_size=5, direction="bidirectional"),
    ]
    assert_right(case(nodes, {"x": array(4, 2, 3), **parts}))


def test_loss_and_its_probabilities():
    nodes = [
        helper.make_node("SoftmaxCrossEntropyLoss", ["x", "labels", "weights"], ["loss", "p"], ignore_index=1),
        helper.make_node("Mul", ["loss", "p"], ["y"]),
    ]
    constants = {"labels": np.array([[0, 1, 2], [2, 2, 1]]), "weights": np.array([0.3, 0.5, 2])}
    assert_right(case(nodes, {"x": array(2, 3, 3)}, constants=constants))


@pytest.mark.parametrize("upper, k", [(0, 1), (1, -1), (1, None)])
def test_triangles(upper, k):
    inputs = ["x"] if k is None else ["x", "k"]
    constants = {} if k is None else {"k": np.array(k)}
    assert_right(case([helper.make_node("Trilu", inputs, ["y"], upper=upper)], {"x": array(2, 3, 4)}, constants=constants))


def test_the_type_of_another_value_has_no_gradient():
    nodes = [helper.make_node("CastLike", ["c", "x"], ["k"]), helper.make_node("Mul", ["x", "k"], ["y"])]
    assert_right(case(nodes, {"x": array(3)}, constants={"c": np.array([1, 2, 3])}))


def test_largest_elements_by_index():
    """What TopK chose is an index: nothing flows through it."""
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["values", "indices"]),
        helper.make_node("GatherElements", ["z", "indices"], ["chosen"], axis=1),
        helper.make_node("Mul", ["values", "chosen"], ["y"]),
    ]
    assert_right(case(nodes, {"x": array(3, 6), "z": array(3, 6)}, constants={"k": np.array([2])}))
