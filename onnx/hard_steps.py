"""Training steps in which something looks like what it is not, or does not look like what it is."""

import numpy as np
from net import layer
from shared_steps import row_indices, zeros
from step_net import step


@step()
def both_views(net):
    """x read as it is and transposed: only the summed axis says whose gradient a product with x is."""
    x = net.data("x", [6, 6])
    net.parameter("w0", 6, 6)
    net.parameter("w1", 6, 6)
    net.op("MatMul", x, "w0", into="a")
    net.op("MatMul", net.transpose(x), "w1", into="b")
    dy = net.squared_error(net.op("Mul", "a", "b", into="y"), 6, 6)
    net.op("Mul", dy, "b", into="da")
    net.op("Mul", dy, "a", into="db")
    net.train("w0", net.op("MatMul", "x:10", "da", into="p"))
    net.train("w1", net.op("MatMul", x, "db", into="q"))
    return [layer("w0", "p"), layer("w1", "q")]


@step()
def gram(net):
    """h hᵀ, whose gradient is two products with h."""
    x = net.data("x", [5, 6])
    net.parameter("w", 6, 6)
    h = net.op("Tanh", net.op("MatMul", x, "w", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", h, net.transpose(h), into="y"), 5, 5)
    left = net.op("MatMul", dy, h, into="dh0")
    right = net.op("MatMul", net.transpose(dy), h, into="dh1")
    dz = net.tanh_gradient(h, net.op("Add", left, right, into="dh"), into="dz")
    net.train("w", net.op("MatMul", net.transpose(x), dz, into="p"))
    return [layer("w", "p")]


@step()
def bilinear(net):
    """x w uᵀ: dy u is no weight gradient, though u is data."""
    x, u = net.data("x", [6, 6]), net.data("u", [6, 6])
    net.parameter("w", 6, 6)
    net.op("MatMul", x, "w", into="xw")
    dy = net.squared_error(net.op("MatMul", "xw", net.transpose(u), into="y"), 6, 6)
    net.op("MatMul", dy, u, into="dxw")
    net.train("w", net.op("MatMul", net.transpose(x), "dxw", into="p"))
    return [layer("w", "p")]


@step()
def factorised(net):
    """x (v w): both weights reach the layer through their product."""
    x = net.data("x", [5, 6])
    net.parameter("v", 6, 2)
    net.parameter("w", 2, 4)
    net.op("MatMul", "v", "w", into="vw")
    dy = net.squared_error(net.op("MatMul", x, "vw", into="y"), 5, 4)
    net.op("MatMul", net.transpose(x), dy, into="p")
    net.train("v", net.op("MatMul", "p", net.transpose("w"), into="dv"))
    net.train("w", net.op("MatMul", net.transpose("v"), "p", into="dw"))
    return [layer("v", "p", reason="derived"), layer("w", "p", reason="derived")]


@step(arguments=("--param", "latents", "--param", "wq", "--param", "wv"))
def learned_queries(net):
    """latents wq is no layer, as both are parameters; with x it is one, whose weight is computed from the two."""
    x = net.data("x", [5, 6])
    net.parameter("latents", 3, 6)
    net.parameter("wq", 6, 6)
    net.parameter("wv", 6, 6)
    net.op("MatMul", "latents", "wq", into="q")
    s = net.op("Tanh", net.op("MatMul", "q", net.transpose(x), into="scores"), into="s")
    net.op("MatMul", x, "wv", into="v")
    dy = net.squared_error(net.op("MatMul", s, "v", into="y"), 3, 6)
    net.op("MatMul", net.transpose(s), dy, into="dv")
    ds = net.tanh_gradient(s, net.op("MatMul", dy, net.transpose("v"), into="ds"), into="dscores")
    net.op("MatMul", ds, x, into="dq")
    net.train("wv", net.op("MatMul", "x:10", "dv", into="gv"))
    net.train("wq", net.op("MatMul", net.transpose("latents"), "dq", into="gq"))
    net.train("latents", net.op("MatMul", "dq", net.transpose("wq"), into="gl"))
    derived = [layer("latents", "dq", reason="derived"), layer("wq", "dq", reason="derived")]
    return [*derived, layer("wv", "gv")]


@step()
def constant_input(net):
    """The input of a layer may be a constant."""
    net.parameter("w", 6, 4)
    net.op("MatMul", net.constant("basis", net.normal(5, 6)), "w", into="bw")
    dy = net.squared_error(net.op("Mul", "bw", net.data("u", [5, 4]), into="y"), 5, 4)
    net.train("w", net.op("MatMul", net.transpose("basis"), net.op("Mul", dy, "u", into="du"), into="p"))
    return [layer("w", "p")]


@step()
def bias_by_product(net):
    """The gradient of a bias, summed by a product with ones."""
    x = net.data("x", [5, 6])
    net.parameter("w", 6, 4)
    net.parameter("b", 1, 4)
    net.op("Add", net.op("MatMul", x, "w", into="xw"), "b", into="y")
    dy = net.squared_error("y", 5, 4)
    net.train("b", net.op("MatMul", net.constant("ones", np.ones((1, 5), np.float32)), dy, into="db"))
    net.train("w", net.op("MatMul", net.transpose(x), dy, into="p"))
    return [layer("w", "p")]


@step()
def recomputed(net):
    """Activation checkpointing: the backward pass computes h again, from nodes of its own."""
    x = net.data("x", [5, 6])
    net.parameter("w0", 6, 6)
    net.parameter("w1", 6, 4)
    h = net.op("Tanh", net.op("MatMul", x, "w0", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", h, "w1", into="y"), 5, 4)
    again = net.op("Tanh", net.op("MatMul", x, "w0", into="z again"), into="h again")
    net.train("w1", net.op("MatMul", net.transpose(again), dy, into="p1"))
    dz = net.tanh_gradient(again, net.op("Gemm", dy, "w1", into="dh", transB=1), into="dz")
    net.train("w0", net.op("MatMul", net.transpose(x), dz, into="p0"))
    return [layer("w0", "p0"), layer("w1", "p1", input_slots={"p1": 0})]


@step()
def regularised(net):
    """An L1 penalty adds a term that is the same for every batch; the data's part is conditioned."""
    x = net.data("x", [5, 6])
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", x, "w", into="y"), 5, 4)
    net.op("MatMul", net.transpose(x), dy, into="p")
    penalty = net.op("Mul", net.op("Sign", "w", into="sign"), net.constant("strength", 0.01), into="penalty")
    net.train("w", net.op("Add", "p", penalty, into="g"))
    return [layer("w", "p")]


@step()
def other_term(net):
    """x w + u ∘ w: the weight's gradient has a term that is no product."""
    x, u = net.data("x", [6, 6]), net.data("u", [6, 6])
    net.parameter("w", 6, 6)
    net.op("Add", net.op("MatMul", x, "w", into="xw"), net.op("Mul", u, "w", into="uw"), into="y")
    dy = net.squared_error("y", 6, 6)
    net.op("MatMul", net.transpose(x), dy, into="p")
    net.train("w", net.op("Add", "p", net.op("Mul", u, dy, into="du"), into="g"))
    return [layer("w", "p", reason="other-term")]


@step()
def run_time_scale(net):
    """Loss scaling: the gradient is multiplied by a number that is fed."""
    x = net.data("x", [5, 6])
    net.parameter("w", 6, 4)
    dy = net.squared_error(net.op("MatMul", x, "w", into="y"), 5, 4)
    net.op("MatMul", net.transpose(x), dy, into="p")
    net.train("w", net.op("Mul", "p", net.scalar("unscale", 0.125), into="g"))
    return [layer("w", "p")]


def two_inputs(net, *shape):
    """x w + u w, and the two products of w's gradient."""
    x, u = net.data("x", [5, 6]), net.data("u", [5, 6])
    net.parameter("w", *shape)
    net.op("Add", net.op("MatMul", x, "w", into="xw"), net.op("MatMul", u, "w", into="uw"), into="y")
    dy = net.squared_error("y", 5, shape[1])
    net.op("MatMul", net.transpose(x), dy, into="p0")
    net.op("MatMul", net.transpose(u), dy, into="p1")


@step()
def visible_term(net):
    """One of two products that add up is an output too: it has to keep its value, so their rows cannot be stacked."""
    two_inputs(net, 6, 4)
    net.output("p0", [6, 4])
    net.train("w", net.op("Add", "p0", "p1", into="g"))
    return [layer("w", "p0", "p1", reason="unsupported")]


@step()
def scales_at_run_time(net):
    """Two products that add up with different factors, which are fed."""
    two_inputs(net, 6, 4)
    net.op("Mul", "p0", net.scalar("s0", 0.5), into="q0")
    net.op("Mul", "p1", net.scalar("s1", 2.0), into="q1")
    net.train("w", net.op("Add", "q0", "q1", into="g"))
    return [layer("w", "p0", "p1", reason="unsupported")]


@step()
def common_scale(net):
    """The sum of two products, scaled by a number that is fed."""
    two_inputs(net, 6, 4)
    net.op("Add", "p0", "p1", into="sum")
    net.train("w", net.op("Mul", "sum", net.scalar("s", 0.5), into="g"))
    return [layer("w", "p0", "p1")]


@step()
def whole_and_half(net):
    """The whole weight on x, its upper half on u."""
    x, u = net.data("x", [5, 6]), net.data("u", [5, 6])
    net.parameter("w", 8, 6)
    net.op("Split", "w", net.constant("sizes", [4, 4]), into=["upper", "lower"], axis=0)
    net.op("MatMul", x, net.transpose("w"), into="xw")
    net.op("MatMul", u, net.transpose("upper"), into="uw")
    dy = net.squared_error(net.op("Concat", "xw", "uw", into="y", axis=1), 5, 12)
    net.op("Split", dy, net.constant("widths", [8, 4]), into=["dx", "du"], axis=1)
    net.op("MatMul", net.transpose("dx"), x, into="p0")
    net.op("MatMul", net.transpose("du"), u, into="p1")
    net.op("Pad", "p1", net.constant("below", [0, 0, 4, 0]), into="p1.whole")
    net.train("w", net.op("Add", "p0", "p1.whole", into="g"))
    return [layer("w", "p0", "p1", reason="unsupported")]


@step()
def overlapping_slices(net):
    """Rows 0 to 5 on x, rows 3 to 8 on u: some rows get both products."""
    x, u = net.data("x", [5, 6]), net.data("u", [5, 6])
    net.parameter("w", 8, 6)
    axis = net.constant("axis", [0])
    net.op("Slice", "w", net.constant("from0", [0]), net.constant("to5", [5]), axis, into="wx")
    net.op("Slice", "w", net.constant("from3", [3]), net.constant("to8", [8]), axis, into="wu")
    net.op("MatMul", x, net.transpose("wx"), into="a")
    net.op("MatMul", u, net.transpose("wu"), into="b")
    dy = net.squared_error(net.op("Mul", "a", "b", into="y"), 5, 5)
    net.op("MatMul", net.transpose(net.op("Mul", dy, "b", into="da")), x, into="px")
    net.op("MatMul", net.transpose(net.op("Mul", dy, "a", into="db")), u, into="pu")
    upper = net.op("ScatterND", zeros(net, "zeros", 8, 6), row_indices(net, "rows0", 0, 5), "px", into="gx")
    lower = net.op("ScatterND", "zeros", row_indices(net, "rows3", 3, 5), "pu", into="gu")
    net.train("w", net.op("Add", upper, lower, into="g"))
    return [layer("w", "px", "pu", reason="unsupported")]


@step()
def featureless_graph_convolution(net):
    """adj tanh(adj w0) w1: adjᵀ dy is as large as w0, comes from the same matrix as its gradient, and is none."""
    net.data("adj", [6, 6])
    net.parameter("w0", 6, 4)
    net.parameter("w1", 4, 4)
    h = net.op("Tanh", net.op("MatMul", "adj", "w0", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", "adj", net.op("MatMul", h, "w1", into="hw"), into="y"), 6, 4)
    dhw = net.op("MatMul", net.transpose("adj"), dy, into="dhw")
    net.train("w1", net.op("MatMul", net.transpose(h), dhw, into="p1"))
    dz = net.tanh_gradient(h, net.op("MatMul", dhw, net.transpose("w1"), into="dh"), into="dz")
    net.train("w0", net.op("MatMul", "adj:10", dz, into="p0"))
    return [layer("w0", "p0"), layer("w1", "p1")]
