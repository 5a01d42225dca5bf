"""Files that ONNX does not allow, though they can be decoded: an error that names file, node or tensor, and what there is."""

import numpy as np
import onnx
import pytest
from networks import network, random_layers
from onnx import TensorProto, helper
from tool import call


def unsorted(graph):
    graph.node.insert(0, graph.node.pop())
    return ["Gemm 'Gemm:z' reads 'fc0.h', which only Tanh 'Tanh:fc0.h' makes, and that stands behind it"]


def unsorted_in_a_branch(graph):
    """Both branches are the same."""
    nodes = [helper.make_node("Neg", ["inner"], ["outer"]), helper.make_node("Neg", ["z"], ["inner"])]
    branch = helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("outer", TensorProto.FLOAT, None)])
    graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch))
    return ["Neg 'outer' reads 'inner', which only Neg 'inner' makes, and that stands behind it"]


def cyclic(graph):
    graph.node[0].input[0] = "z"
    return ["the graph has a cycle through Gemm 'Gemm:fc0.z'"]


def weight_of(graph, **fields):
    """Another tensor in the place of the first weight."""
    for name in ("raw_data", "float_data", "dims"):
        if name in fields:
            graph.initializer[0].ClearField(name)
    for name, value in fields.items():
        if name == "raw_data":
            graph.initializer[0].raw_data = value
        else:
            getattr(graph.initializer[0], name).extend(value)


def short_bytes(graph):
    weight_of(graph, raw_data=bytes(188))
    return ["tensor 'fc0.weight': float[8, 6] takes 192 bytes, and the file holds 188"]


def long_bytes(graph):
    weight_of(graph, raw_data=bytes(196))
    return ["tensor 'fc0.weight': float[8, 6] takes 192 bytes, and the file holds 196"]


def short_list(graph):
    weight_of(graph, raw_data=b"", float_data=[0.5] * 47)
    return ["tensor 'fc0.weight': float[8, 6] takes 48 numbers, and the file holds 47"]


def no_data(graph):
    weight_of(graph, raw_data=b"")
    return ["tensor 'fc0.weight': float[8, 6] takes 48 numbers, and the file holds 0"]


def negative_dims(graph):
    weight_of(graph, dims=[-8, -6])
    return ["tensor 'fc0.weight': no tensor has the dims [-8, -6]"]


def short_integers(graph):
    """Each takes as many bytes as it needs."""
    tensor = TensorProto(name="numbers", dims=[4], data_type=TensorProto.INT64, int64_data=[1, 300, -1])
    graph.initializer.append(tensor)
    return ["tensor 'numbers': int64[4] takes 4 numbers, and the file holds 3"]


def short_constant(graph):
    tensor = TensorProto(dims=[4], data_type=TensorProto.FLOAT16, raw_data=bytes(6))
    graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    return ["tensor 'c': float16[4] takes 8 bytes, and the file holds 6"]


def default_of_another_shape(graph):
    graph.input.append(helper.make_tensor_value_info("fc0.weight", TensorProto.FLOAT, [8, 7]))
    return ["tensor 'fc0.weight': the graph input of that name is float[8, 7], and its initializer float[8, 6]"]


def default_of_another_rank(graph):
    graph.input.append(helper.make_tensor_value_info("fc0.weight", TensorProto.FLOAT, [48]))
    return ["tensor 'fc0.weight': the graph input of that name is float[48], and its initializer float[8, 6]"]


def default_of_another_type(graph):
    graph.input.append(helper.make_tensor_value_info("fc0.weight", TensorProto.DOUBLE, [8, 6]))
    return ["tensor 'fc0.weight': the graph input of that name is double[8, 6], and its initializer float[8, 6]"]


def external_of_another_size(graph):
    weight_of(graph, raw_data=b"")
    graph.initializer[0].data_location = TensorProto.EXTERNAL
    for key, value in {"location": "data", "length": "188"}.items():
        graph.initializer[0].external_data.add(key=key, value=value)
    return ["external data of tensor 'fc0.weight': it is said to have 188 bytes, and its dims and type take 192"]


def external_that_is_too_short(graph):
    """Without a length, it is as long as it has to be."""
    external_of_another_size(graph)
    graph.initializer[0].external_data.pop()
    graph.initializer[0].external_data.add(key="offset", value="16")
    return ["external data of tensor 'fc0.weight': it ends at byte 208, but", "has 200 bytes"]


BROKEN = [
    unsorted,
    unsorted_in_a_branch,
    cyclic,
    short_bytes,
    long_bytes,
    short_list,
    no_data,
    negative_dims,
    short_integers,
    short_constant,
    default_of_another_shape,
    default_of_another_rank,
    default_of_another_type,
    external_of_another_size,
    external_that_is_too_short,
]


@pytest.mark.parametrize("what_for", [["--loss", "cross-entropy"], ["--param", "fc*"], ["--list"], ["--weights"]], ids=" ".join)
@pytest.mark.parametrize("broken", BROKEN)
def test_refused(broken, what_for, tmp_path):
    model = network(random_layers([6, 8, 4])).model()
    messages = broken(model.graph)
    (tmp_path / "forward.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "data").write_bytes(bytes(200))
    np.savez(tmp_path / "trained.npz", **{"fc1.bias": np.zeros(4, np.float32)})
    before = set(tmp_path.iterdir())
    more = [tmp_path / "trained.npz"] if what_for == ["--weights"] else []
    done = call(tmp_path / "forward.onnx", "-o", tmp_path / "out.onnx", *what_for, *more)
    assert done.returncode == 1 and not done.stdout, done.stderr
    for message in [str(tmp_path / "forward.onnx"), *messages]:
        assert message in done.stderr
    assert set(tmp_path.iterdir()) == before


def test_what_onnx_allows(tmp_path):
    """Every way to write a tensor, and a default whose input leaves sizes open."""
    model = network(random_layers([6, 8, 4])).model()
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("fc0.weight", TensorProto.FLOAT, ["m", 6]))
    numbers = {
        TensorProto.FLOAT: [0.5], TensorProto.DOUBLE: [0.5], TensorProto.FLOAT16: [0.5], TensorProto.BFLOAT16: [0.5],
        TensorProto.INT8: [-1], TensorProto.UINT8: [200], TensorProto.INT16: [-300], TensorProto.UINT16: [300],
        TensorProto.INT32: [-1], TensorProto.INT64: [-1], TensorProto.UINT32: [300], TensorProto.UINT64: [300],
        TensorProto.BOOL: [True], TensorProto.COMPLEX64: [1j], TensorProto.COMPLEX128: [1j], TensorProto.INT4: [-3],
        TensorProto.UINT4: [3], TensorProto.FLOAT8E4M3FN: [0.5], TensorProto.STRING: ["text"],
    }  # fmt: skip
    for element, values in numbers.items():
        for count in (0, 1, 3):
            name = f"{TensorProto.DataType.Name(element)} {count}"
            tensor = helper.make_tensor(name, element, [count, 1], values * count)
            graph.initializer.append(tensor)
            if element not in (TensorProto.STRING, TensorProto.INT4, TensorProto.UINT4):
                array = onnx.numpy_helper.to_array(tensor)
                graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name} raw"))
    onnx.save(model, tmp_path / "forward.onnx")
    done = call(tmp_path / "forward.onnx", "-o", tmp_path / "out.onnx", "--loss", "cross-entropy", "--param", "fc*")
    assert done.returncode == 0, done.stderr
