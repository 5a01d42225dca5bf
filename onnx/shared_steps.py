"""Training steps in which several products belong to one weight: used more than once, or in slices.

Letters are those of PATTERNS.md: R adds products up, T adds one inside the other, O has a product per slice."""

import numpy as np
from net import layer, sliced
from step_net import step


def shared(net, combine):
    """w used twice: on x, and on tanh of that. `combine` adds up what the two products give."""
    x = net.data("x", [5, 6])
    net.parameter("w", 6, 6)
    h = net.op("Tanh", net.op("MatMul", x, "w", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", h, "w", into="y"), 5, 6)
    net.op("Gemm", dy, "w", into="dh", transB=1)
    dz = net.tanh_gradient(h, "dh", into="dz")
    net.train("w", combine(x, h, dy, dz))


@step()
def shared_added(net):
    """R: two products and an Add."""

    def combine(x, h, dy, dz):
        first = net.op("MatMul", net.transpose(x), dz, into="p0")
        return net.op("Add", net.op("MatMul", net.transpose(h), dy, into="p1"), first, into="g")

    shared(net, combine)
    return [layer("w", "p0", "p1")]


@step()
def shared_inside_gemm(net):
    """T: one product is the addend of the other."""

    def combine(x, h, dy, dz):
        return net.op("Gemm", x, dz, net.op("Gemm", h, dy, into="p1", transA=1), into="g", transA=1)

    shared(net, combine)
    return [layer("w", "p1", "g")]


@step()
def shared_in_both_layouts(net):
    """One product comes as [in, out], the other one as its transpose, transposed back before the Add."""

    def combine(x, h, dy, dz):
        other = net.transpose(net.op("Gemm", dz, x, into="p0", transA=1))
        return net.op("Add", net.op("Gemm", h, dy, into="p1", transA=1), other, into="g")

    shared(net, combine)
    return [layer("w", "p0", "p1")]


@step()
def shared_with_signs(net):
    """x w - u w: the second product goes into the gradient with a minus."""
    net.data("x", [5, 6])
    net.data("u", [5, 6])
    net.parameter("w", 6, 4)
    net.op("Sub", net.op("MatMul", "x", "w", into="xw"), net.op("MatMul", "u", "w", into="uw"), into="y")
    dy = net.squared_error("y", 5, 4)
    net.op("MatMul", net.transpose("x"), dy, into="p0")
    net.op("MatMul", net.transpose("u"), dy, into="p1")
    net.train("w", net.op("Sub", "p0", "p1", into="g"))
    return [layer("w", "p0", "p1", scales={"p1": -1.0})]


@step()
def shared_with_scales(net):
    """x w, and u (w / 4): the second product is scaled on its way, by a Mul with a constant."""
    net.data("x", [5, 6])
    net.data("u", [3, 6])
    net.parameter("w", 6, 4)
    quarter = net.constant("quarter", 0.25)
    net.op("MatMul", "x", "w", into="xw")
    net.op("MatMul", "u", net.op("Mul", "w", quarter, into="w4"), into="uw")
    net.op("Concat", "xw", "uw", into="y", axis=0)
    dy = net.squared_error("y", 8, 4)
    net.op("Split", dy, net.constant("sizes", [5, 3]), into=["dx", "du"], axis=0)
    net.op("MatMul", net.transpose("x"), "dx", into="p0")
    net.op("MatMul", net.transpose("u"), "du", into="p1")
    net.train("w", net.op("Add", "p0", net.op("Mul", "p1", quarter, into="p1.4"), into="g"))
    return [layer("w", "p0", "p1", scales={"p1": 0.25})]


@step()
def tied(net):
    """R: w and its transpose."""
    x = net.data("x", [5, 8])
    net.parameter("w", 8, 3)
    h = net.op("Tanh", net.op("MatMul", x, "w", into="z"), into="h")
    dy = net.squared_error(net.op("MatMul", h, net.transpose("w"), into="y"), 5, 8)
    dz = net.tanh_gradient(h, net.op("MatMul", dy, "w", into="dh"), into="dz")
    net.op("MatMul", net.transpose(x), dz, into="p0")
    net.op("MatMul", net.transpose(dy), h, into="p1")
    net.train("w", net.op("Add", "p0", "p1", into="g"))
    return [layer("w", "p0", "p1", reason="tied-transpose")]


def halves(net, join):
    """The upper and the lower half of w [8, 6] are layers on x and on u; `join` makes one gradient of theirs."""
    net.data("x", [5, 6])
    net.data("u", [5, 6])
    net.parameter("w", 8, 6)
    net.op("Split", "w", net.constant("sizes", [4, 4]), into=["wx", "wu"], axis=0)
    net.op("MatMul", "x", net.transpose("wx"), into="a")
    net.op("MatMul", "u", net.transpose("wu"), into="b")
    dy = net.squared_error(net.op("Mul", "a", "b", into="y"), 5, 4)
    net.op("MatMul", net.transpose(net.op("Mul", dy, "b", into="da")), "x", into="px")
    net.op("MatMul", net.transpose(net.op("Mul", dy, "a", into="db")), "u", into="pu")
    net.train("w", join("px", "pu"))
    return [sliced("w", "px", "pu")]


@step()
def halves_concatenated(net):
    """O: slices of one weight, each conditioned by itself."""
    return halves(net, lambda px, pu: net.op("Concat", px, pu, into="g", axis=0))


@step()
def halves_padded(net):
    """O: each half is padded to the whole, and the two are added."""

    def join(px, pu):
        below = net.op("Pad", px, net.constant("below", [0, 0, 4, 0]), into="gx")
        above = net.op("Pad", pu, net.constant("above", [4, 0, 0, 0]), into="gu")
        return net.op("Add", below, above, into="g")

    return halves(net, join)


def zeros(net, name, *shape):
    return net.constant(name, np.zeros(shape, np.float32))


def row_indices(net, name, first, count):
    return net.constant(name, np.arange(first, first + count).reshape(count, 1))


@step()
def halves_scattered(net):
    """O: each half is scattered into zeros, and the two are added."""

    def join(px, pu):
        upper = net.op("ScatterND", zeros(net, "z0", 8, 6), row_indices(net, "i0", 0, 4), px, into="gx")
        lower = net.op("ScatterND", zeros(net, "z1", 8, 6), row_indices(net, "i1", 4, 4), pu, into="gu")
        return net.op("Add", upper, lower, into="g")

    return halves(net, join)


@step()
def halves_scattered_in_turn(net):
    """O: the second half is scattered into what the first one was scattered into."""

    def join(px, pu):
        upper = net.op("ScatterND", zeros(net, "z", 8, 6), row_indices(net, "i0", 0, 4), px, into="gx")
        return net.op("ScatterND", upper, row_indices(net, "i1", 4, 4), pu, into="g")

    return halves(net, join)


def one_half_twice(net, spread):
    """The upper half of w is used twice, and each use brings its own gradient of the whole: the same rows add up."""
    x = net.data("x", [5, 6])
    net.parameter("w", 12, 6)
    net.op("Split", "w", net.constant("sizes", [6, 6]), into=["upper", "lower"], axis=0)
    h = net.op("Tanh", net.op("MatMul", x, "upper", into="xw"), into="h")
    dy = net.squared_error(net.op("MatMul", h, "upper", into="y"), 5, 6)
    dz = net.tanh_gradient(h, net.op("MatMul", dy, net.transpose("upper"), into="dh"), into="dz")
    net.op("MatMul", net.transpose(x), dz, into="p0")
    net.op("MatMul", net.transpose(h), dy, into="p1")
    net.train("w", net.op("Add", spread("p0"), spread("p1"), into="g"))


@step()
def one_half_twice_padded(net):
    """Two Pads with the same amounts: the rows of both products are those of one layer."""
    below = net.constant("below", [0, 0, 6, 0])
    one_half_twice(net, lambda p: net.op("Pad", p, below, into=f"{p}.whole"))
    return [layer("w", "p0", "p1", reason="unsupported")]


@step()
def one_half_twice_scattered(net):
    """Two scatters to the same rows."""
    base, rows = zeros(net, "zeros", 12, 6), row_indices(net, "rows", 0, 6)
    one_half_twice(net, lambda p: net.op("ScatterND", base, rows, p, into=f"{p}.whole"))
    return [layer("w", "p0", "p1", reason="unsupported")]
