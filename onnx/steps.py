"""Training steps in standard operators, the way that traced steps and our own backward graphs are written.

Letters are those of PATTERNS.md: R is a MatMul of Transposes, S has the loss's scale, L is a product per expert.
"""

import numpy as np
from net import layer
from onnx import TensorProto, helper
from step_net import step


def mlp(net, product="matmul"):
    """x w0ᵀ + b0, tanh, h w1: one weight [out, in], one [in, out]."""
    x = net.data("x", ["N", 6], (5, 6))
    net.parameter("w0", 7, 6)
    net.parameter("b0", 7)
    net.parameter("w1", 7, 4)
    net.op("Gemm", x, "w0", "b0", into="z", transB=1)
    h = net.op("Tanh", "z", into="h")
    dy = net.squared_error(net.op("MatMul", h, "w1", into="y"), 5, 4)
    net.op("Gemm", dy, "w1", into="dh", transB=1)
    dz = net.tanh_gradient(h, "dh", into="dz")
    net.op("ReduceSum", dz, net.constant("rows", [0]), into="db0", keepdims=0)
    if product == "gemm":
        net.op("Gemm", dz, x, into="g0", transA=1)
        net.op("Gemm", h, dy, into="g1", transA=1)
    else:
        net.op("MatMul", net.transpose(dz), x, into="g0")
        net.op("MatMul", net.transpose(h), dy, into="g1")
    for parameter, gradient in [("w0", "g0"), ("b0", "db0"), ("w1", "g1")]:
        net.train(parameter, gradient)
    return [layer("w0", "g0"), layer("w1", "g1")]


step(name="mlp_matmul")(mlp)
step(name="mlp_gemm")(lambda net: mlp(net, "gemm"))
step(name="mlp_sgd", update="sgd", defaults=True)(mlp)
step(name="mlp_momentum", update="momentum", defaults=True)(mlp)
step(name="mlp_adam", update="adam", defaults=True)(mlp)
step(name="mlp_adam_fed", update="adam")(mlp)
step(name="mlp_double", element=TensorProto.DOUBLE, tolerance=1e-12)(lambda net: mlp(net, "gemm"))
step(name="mlp_double_sgd", element=TensorProto.DOUBLE, tolerance=1e-12, update="sgd", defaults=True)(
    lambda net: mlp(net, "gemm")
)
step(name="mlp_old_opset", opset=13)(mlp)


@step()
def linear_regression(net):
    """S: the scale of the loss may end up in the product, whose gradient factor is then y - t, a forward value."""
    x = net.data("x", [5, 6])
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", x, "w", into="y"), 5, 4)
    net.train("w", net.op("MatMul", net.transpose(x), dy, into="g"))
    return [layer("w", "g")]


@step()
def all_sizes_equal(net):
    """Data, target, weights and gradients have one shape; only the way that they are used tells them apart."""
    x = net.data("x", [6, 6])
    net.parameter("w0", 6, 6)
    net.parameter("w1", 6, 6)
    h = net.op("Tanh", net.op("MatMul", x, "w0", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", h, "w1", into="y"), 6, 6)
    net.train("w1", net.op("MatMul", net.transpose(h), dy, into="g1"))
    net.op("MatMul", dy, net.transpose("w1"), into="dh")
    dz = net.tanh_gradient(h, "dh", into="dz")
    net.train("w0", net.op("MatMul", net.transpose(x), dz, into="g0"))
    return [layer("w0", "g0"), layer("w1", "g1")]


@step(arguments=("--param", "w0", "--param", "w1"))
def gradient_of_the_data(net):
    """The gradient of x is delivered too: the user has to say what is trained."""
    layers = all_sizes_equal(net)
    net.op("MatMul", "dz", net.transpose("w0"), into="dx")
    net.output("dx", [6, 6])
    return layers


@step()
def rank_three(net):
    """R: rows of rank 3 are reshaped to a matrix for the product, with a chain of layouts on both sides and behind it."""
    net.data("x", ["N", "S", 6], (2, 5, 6))
    net.parameter("w", 4, 6)
    net.op("MatMul", "x", net.transpose("w"), into="y")
    dy = net.squared_error("y", 2, 5, 4)
    net.op("Reshape", dy, net.constant("to4", [-1, 4]), into="dy2")
    net.op("Unsqueeze", "x", net.constant("front", [0]), into="x4")
    net.op("Reshape", "x4", net.constant("to6", [-1, 6]), into="x2")
    net.op("MatMul", net.transpose(net.op("Identity", "x2", into="x2i")), "dy2", into="p")
    net.train("w", net.op("Identity", net.transpose("p"), into="g"))
    return [layer("w", "p")]


@step()
def summed_batches(net):
    """A product per batch, summed over the batches afterwards: all rows belong to one layer."""
    net.data("x", [3, 5, 6])
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", "x", "w", into="y"), 3, 5, 4)
    net.op("MatMul", net.transpose("x", 0, 2, 1), dy, into="p")
    net.train("w", net.op("ReduceSum", "p", net.constant("batches", [0]), into="g", keepdims=0))
    return [layer("w", "p")]


@step()
def experts(net):
    """L: bmm with one weight per expert."""
    net.data("x", [3, 5, 6])
    net.parameter("w", 3, 6, 4)
    dy = net.squared_error(net.op("MatMul", "x", "w", into="y"), 3, 5, 4)
    net.train("w", net.op("MatMul", net.transpose("x", 0, 2, 1), dy, into="p"))
    return [layer("w", "p", independent=(0,))]


@step()
def experts_of_batches(net):
    """[B, E, rows, in] on [E, in, out]: a product per batch and expert, summed over batches."""
    net.data("x", [2, 3, 5, 6])
    net.parameter("w", 3, 6, 4)
    dy = net.squared_error(net.op("MatMul", "x", "w", into="y"), 2, 3, 5, 4)
    net.op("MatMul", net.transpose("x", 0, 1, 3, 2), dy, into="p")
    net.train("w", net.op("ReduceSum", "p", net.constant("batches", [0]), into="g", keepdims=0))
    return [layer("w", "p", independent=(1,))]


@step()
def experts_rows_first(net):
    """Rows and experts change places in front of the product: [rows, E, in], which the optimiser makes an attribute of it."""
    net.data("x", [5, 3, 6])
    net.parameter("w", 3, 6, 4)
    dy = net.squared_error(net.op("MatMul", net.transpose("x", 1, 0, 2), "w", into="y"), 3, 5, 4)
    net.train("w", net.op("MatMul", net.transpose("x", 1, 2, 0), dy, into="p"))
    return [layer("w", "p", independent=(0,))]


@step()
def experts_used_twice(net):
    """The rows of both uses of each expert are stacked, experts apart."""
    x = net.data("x", [3, 5, 6])
    net.parameter("w", 3, 6, 6)
    h = net.op("Tanh", net.op("MatMul", x, "w", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", h, "w", into="y"), 3, 5, 6)
    net.op("MatMul", dy, net.transpose("w", 0, 2, 1), into="dh")
    dz = net.tanh_gradient(h, "dh", into="dz")
    net.op("MatMul", net.transpose(x, 0, 2, 1), dz, into="p0")
    net.op("MatMul", net.transpose(h, 0, 2, 1), dy, into="p1")
    net.train("w", net.op("Add", "p0", "p1", into="g"))
    return [layer("w", "p0", "p1", independent=(0,))]


@step()
def masked(net):
    """P: w times a mask that is fed."""
    net.data("x", [5, 6])
    net.data("mask", [6, 4], (net.random.random((6, 4)) < 0.5).astype(np.float32))
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", "x", net.op("Mul", "w", "mask", into="wm"), into="y"), 5, 4)
    net.op("MatMul", net.transpose("x"), dy, into="p")
    net.train("w", net.op("Mul", "p", "mask", into="g"))
    return [layer("w", "p", reason="derived")]


@step()
def scaled_weight(net):
    """A constant factor of the weight, and a minus, are layout."""
    net.data("x", [5, 6])
    net.parameter("w", 6, 4)
    half = net.constant("half", 0.5)
    net.op("Neg", net.op("Mul", "w", half, into="w2"), into="wn")
    dy = net.squared_error(net.op("MatMul", "x", "wn", into="y"), 5, 4)
    net.op("MatMul", net.transpose("x"), dy, into="p")
    net.train("w", net.op("Mul", net.op("Neg", "p", into="pn"), half, into="g"))
    return [layer("w", "p")]


@step(update="momentum", defaults=True)
def clipped(net):
    """The gradient is scaled by a number that comes from its own norm, before the update."""
    net.data("x", [5, 6])
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", "x", "w", into="y"), 5, 4)
    p = net.op("MatMul", net.transpose("x"), dy, into="p")
    net.op("Sqrt", net.op("ReduceSum", net.op("Mul", p, p, into="pp"), into="ss", keepdims=0), into="norm")
    limit = net.op("Div", net.constant("limit", 0.1), "norm", into="ratio")
    net.train("w", net.op("Mul", p, net.op("Min", limit, net.constant("one", 1.0), into="factor"), into="g"))
    return [layer("w", "p")]


@step()
def read_in_a_branch(net):
    """A product is read only in the branches of an If, from outside."""
    net.data("x", [5, 6])
    net.data("clip", [], np.array(True), TensorProto.BOOL)
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", "x", "w", into="y"), 5, 4)
    net.op("MatMul", net.transpose("x"), dy, into="p")
    branches = {}
    for name, op_type in [("then_branch", "Tanh"), ("else_branch", "Identity")]:
        result = helper.make_tensor_value_info(f"{name}.g", TensorProto.FLOAT, [6, 4])
        node = helper.make_node(op_type, ["p"], [result.name], name=name)
        branches[name] = helper.make_graph([node], name, [], [result])
    net.train("w", net.op("If", "clip", into="g", **branches))
    return [layer("w", "p")]


def attention(net):
    """q, k and v of the data; dq, dk and dv are products of activations, and stay."""
    net.data("x", [5, 6])
    for name in "qkv":
        net.op("MatMul", "x", net.parameter(f"w{name}", 6, 6), into=name)
    p = net.op("Softmax", net.op("MatMul", "q", net.transpose("k"), into="s"), into="p", axis=-1)
    dy = net.squared_error(net.op("MatMul", p, "v", into="y"), 5, 6)
    net.op("MatMul", net.transpose(p), dy, into="dv")
    dp = net.op("MatMul", dy, net.transpose("v"), into="dp")
    weighted = net.op("Mul", p, dp, into="pdp")
    net.op("ReduceSum", weighted, net.constant("last", [-1]), into="total", keepdims=1)
    ds = net.op("Sub", weighted, net.op("Mul", p, "total", into="pt"), into="ds")
    net.op("MatMul", ds, "k", into="dq")
    net.op("MatMul", net.transpose(ds), "q", into="dk")
    rows = net.transpose("x")
    for name in "qkv":
        net.train(f"w{name}", net.op("MatMul", rows, f"d{name}", into=f"w{name}_grad"))
    return [layer(f"w{name}", f"w{name}_grad") for name in "qkv"]


step(ties=({"wq", "wk", "wv"},))(attention)
# An update reads the parameter that it is for: nothing is left to names.
step(name="attention_sgd", update="sgd")(attention)
step(name="attention_momentum", update="momentum", defaults=True)(attention)
step(name="attention_adam", update="adam")(attention)


@step()
def graph_convolution(net):
    """adjacency (x w): aᵀ dy is the gradient of x w, no weight gradient."""
    for name, shape in [("adj", (5, 5)), ("x", (5, 6))]:
        net.data(name, list(shape))
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", "adj", net.op("MatMul", "x", "w", into="xw"), into="y"), 5, 4)
    dxw = net.op("MatMul", net.transpose("adj"), dy, into="dxw")
    net.train("w", net.op("MatMul", net.transpose("x"), dxw, into="g"))
    return [layer("w", "g")]
