"""Forward models of dense layers, shared, derived, frozen, transposed and scaled weights, and of layers with a gradient node of
their own. Letters are those of PATTERNS.md."""

import numpy as np
from corpus import forward
from net import layer
from onnx import TensorProto


def linear(net, x, name, width, out, bias=True, trained=True, into=None):
    """y = x Wᵀ + b as one Gemm."""
    inputs = [x, net.weight(f"{name}.w", out, width, trained=trained)]
    if bias:
        inputs.append(net.weight(f"{name}.b", out, trained=trained))
    return net.op("Gemm", *inputs, into=into or f"{name}.y", transB=1)


@forward()
def mlp(net):
    """A: two layers, the second one delivers y."""
    h = net.op("Relu", linear(net, net.data("x", ["N", 6], (5, 6)), "fc0", 6, 7), into="h")
    linear(net, h, "fc1", 7, 4, into="y")
    net.output("y", ["N", 4])
    return [layer("fc0.w", "fc0.w_grad"), layer("fc1.w", "fc1.w_grad")]


@forward()
def shared_linear(net):
    """D: one Gemm weight three times; its rows are stacked."""
    h = net.data("x", [5, 6])
    net.weight("w", 6, 6)
    net.weight("b", 6)
    for i in range(3):
        h = net.op("Tanh", net.op("Gemm", h, "w", "b", into=f"z{i}", transB=1), into=f"h{i}")
    net.op("Identity", h, into="y")
    net.output("y", [5, 6])
    return [layer("w", "w_grad_0", "w_grad_1", "w_grad_2")]


@forward()
def shared_matmul_3d(net):
    """B and D: one MatMul weight [in, out] twice, on rank 3 with symbolic sizes."""
    net.weight("w", 6, 6)
    h = net.op("Tanh", net.op("MatMul", net.data("x", ["N", "S", 6], (3, 4, 6)), "w", into="z0"), into="h")
    net.op("MatMul", h, "w", into="y")
    net.output("y", ["N", "S", 6])
    return [layer("w", "w_grad_0", "w_grad_1")]


@forward()
def shared_mixed_rank(net):
    """One weight on a matrix and on a stack of matrices."""
    net.weight("w", 6, 6)
    h = net.op("Tanh", net.op("MatMul", net.data("x", [2, 4, 6]), "w", into="z0"), into="h")
    net.op("ReduceMean", h, into="m", axes=[1], keepdims=0)
    net.op("MatMul", "m", "w", into="y")
    net.output("y", [2, 6])
    return [layer("w", "w_grad_0", "w_grad_1")]


@forward()
def tied_autoencoder(net):
    """E: W down, the same W up."""
    h = linear(net, net.data("x", [5, 8]), "e", 8, 3)
    net.op("Gemm", net.op("Tanh", h, into="h"), "e.w", net.weight("c", 8), into="y")
    net.output("y", [5, 8])
    return [layer("e.w", "e.w_grad_0", "e.w_grad_1", reason="tied-transpose")]


@forward()
def tied_autoencoder_3d(net):
    """The same on rank 3, with an explicit Transpose of the weight."""
    net.weight("w", 8, 3)
    h = net.op("Tanh", net.op("MatMul", net.data("x", [2, 5, 8]), "w", into="z"), into="h")
    net.op("MatMul", h, net.op("Transpose", "w", into="wt", perm=[1, 0]), into="y")
    net.output("y", [2, 5, 8])
    return [layer("w", "w_grad_0", "wt_grad", reason="tied-transpose")]


@forward()
def masked_linear(net):
    """P: w ∘ mask, the mask a constant."""
    net.weight("w", 7, 6)
    net.constant("mask", (net.random.random((7, 6)) < 0.5).astype(np.float32))
    net.op("Mul", "w", "mask", into="wm")
    h = net.op("Relu", net.op("Gemm", net.data("x", [5, 6]), "wm", into="z", transB=1), into="h")
    linear(net, h, "fc", 7, 4, into="y")
    net.output("y", [5, 4])
    return [layer("w", "wm_grad", reason="derived"), layer("fc.w", "fc.w_grad")]


@forward()
def lora_merged(net):
    """P: w0 + 2 b a with a frozen w0: two trained weights share one product."""
    net.weight("w0", 7, 6, trained=False)
    net.weight("a", 2, 6)
    net.weight("b", 7, 2)
    net.op("Mul", net.op("MatMul", "b", "a", into="ba"), net.constant("two", 2.0), into="scaled")
    net.op("Add", "w0", "scaled", into="we")
    net.op("Gemm", net.data("x", [5, 6]), "we", into="y", transB=1)
    net.output("y", [5, 7])
    return [layer("a", "we_grad", reason="derived"), layer("b", "we_grad", reason="derived")]


@forward()
def lora_parallel(net):
    """Unmerged LoRA: x aᵀ bᵀ are two ordinary layers beside a frozen one."""
    x = net.data("x", [5, 6])
    net.weight("a", 2, 6)
    net.weight("b", 7, 2)
    base = linear(net, x, "base", 6, 7, trained=False)
    low = net.op("Gemm", net.op("Gemm", x, "a", into="low", transB=1), "b", into="up", transB=1)
    net.op("Add", base, low, into="y")
    net.output("y", [5, 7])
    return [layer("a", "a_grad"), layer("b", "b_grad")]


@forward()
def weight_norm(net):
    """P: w = g v / |v|; both reach the layer through arithmetic."""
    net.weight("v", 7, 6)
    net.weight("g", 7, 1)
    net.op("ReduceSum", net.op("Mul", "v", "v", into="vv"), net.constant("axis", [1]), into="s", keepdims=1)
    net.op("Mul", net.op("Div", "v", net.op("Sqrt", "s", into="norm"), into="unit"), "g", into="w")
    net.op("Gemm", net.data("x", [5, 6]), "w", into="y", transB=1)
    net.output("y", [5, 7])
    return [layer("v", "w_grad", reason="derived"), layer("g", "w_grad", reason="derived")]


@forward()
def frozen_layers(net):
    """A frozen layer in front, and one between two trained ones."""
    h = net.data("x", [5, 6])
    for i, trained in enumerate([False, True, False, True]):
        h = net.op("Tanh", linear(net, h, f"fc{i}", 6, 6, trained=trained), into=f"h{i}")
    net.op("Identity", h, into="y")
    net.output("y", [5, 6])
    return [layer("fc1.w", "fc1.w_grad"), layer("fc3.w", "fc3.w_grad")]


@forward()
def scaled_addmm(net):
    """G and H: alpha and beta, weight [in, out]."""
    net.weight("w", 6, 7)
    net.weight("b", 7)
    net.op("Gemm", net.data("x", [5, 6]), "w", "b", into="z", alpha=2.0, beta=0.5)
    net.weight("v", 4, 7)
    net.op("Gemm", net.op("Tanh", "z", into="h"), "v", into="y", transB=1, alpha=0.25)
    net.output("y", [5, 4])
    return [layer("w", "w_grad"), layer("v", "v_grad")]


@forward()
def transposed_input(net):
    """I: x stored [features, rows], read by a weight [out, in] and by one [in, out]."""
    x = net.data("x", [6, 5])
    net.weight("w", 7, 6)
    net.weight("v", 6, 7)
    net.op("Gemm", x, "w", into="a", transA=1, transB=1)
    net.op("Gemm", x, "v", into="b", transA=1)
    net.op("Mul", net.op("Tanh", "a", into="ta"), net.op("Sigmoid", "b", into="sb"), into="y")
    net.output("y", [5, 7])
    return [layer("w", "w_grad"), layer("v", "v_grad")]


@forward()
def weight_left_2d(net):
    """J: w x, features of x in its rows."""
    net.weight("w", 7, 6)
    net.weight("v", 4, 7)
    h = net.op("Tanh", net.op("MatMul", "w", net.data("x", [6, 5]), into="z"), into="h")
    net.op("MatMul", "v", h, into="y")
    net.output("y", [4, 5])
    return [layer("w", "w_grad"), layer("v", "v_grad")]


@forward()
def two_heads(net):
    """One activation read by two weights of one shape, whose outputs go different ways."""
    h = net.op("Relu", linear(net, net.data("x", [5, 6]), "fc", 6, 7), into="h")
    left = net.op("Tanh", linear(net, h, "l", 7, 4), into="tl")
    net.op("Mul", left, linear(net, h, "r", 7, 4), into="y")
    net.output("y", [5, 4])
    return [layer("fc.w", "fc.w_grad"), layer("l.w", "l.w_grad"), layer("r.w", "r.w_grad")]


@forward(ties=({"l.w", "r.w"},))
def equal_heads(net):
    """Two weights whose inputs and output gradients are equal: only names say whose product is whose."""
    h = net.op("Relu", linear(net, net.data("x", [5, 6]), "fc", 6, 7), into="h")
    net.op("Add", linear(net, h, "l", 7, 4, bias=False), linear(net, h, "r", 7, 4, bias=False), into="y")
    net.output("y", [5, 4])
    return [layer("fc.w", "fc.w_grad"), layer("l.w", "l.w_grad"), layer("r.w", "r.w_grad")]


def cast_layers(net, element):
    """float32 weights, cast for the product and back behind it: only products have the other type."""
    h = net.data("x", [5, 6])
    layers = []
    for i, (width, out) in enumerate([(6, 7), (7, 4)]):
        net.op("Cast", net.weight(f"w{i}", out, width), into=f"c{i}", to=element)
        net.op("Gemm", net.op("Cast", h, into=f"x{i}", to=element), f"c{i}", into=f"z{i}", transB=1)
        h = net.op("Tanh", net.op("Cast", f"z{i}", into=f"s{i}", to=TensorProto.FLOAT), into=f"h{i}")
        layers.append(layer(f"w{i}", f"c{i}_grad"))
    net.op("Identity", h, into="y")
    net.output("y", [5, 4])
    return layers


@forward()
def double_layers(net):
    """Q: products in double."""
    return cast_layers(net, TensorProto.DOUBLE)


@forward(tolerance=2e-3)
def half_layers(net):
    """Q: products in float16, whose precision is 5e-4."""
    return cast_layers(net, TensorProto.FLOAT16)


@forward()
def unrolled_recurrence(net):
    """An unrolled recurrence from a constant h0 of zeros, over slices of a sequence."""
    net.weight("wi", 5, 3)
    net.weight("wh", 5, 5)
    h = net.constant("h0", np.zeros((4, 5), np.float32))
    net.data("x", [4, 3, 3])
    net.op("Split", "x", into=["x0", "x1", "x2"], axis=1)
    for i in range(3):
        net.op("Squeeze", f"x{i}", net.constant(f"one{i}", [1]), into=f"s{i}")
        net.op("Gemm", f"s{i}", "wi", into=f"i{i}", transB=1)
        net.op("Gemm", h, "wh", into=f"r{i}", transB=1)
        h = net.op("Tanh", net.op("Add", f"i{i}", f"r{i}", into=f"z{i}"), into=f"h{i + 1}")
    net.op("Identity", h, into="y")
    net.output("y", [4, 5])
    return [layer("wi", *(f"wi_grad_{i}" for i in range(3))), layer("wh", *(f"wh_grad_{i}" for i in range(3)))]


@forward()
def conv_and_linear(net):
    """A convolution's gradient comes out of one node; the layer behind it is an ordinary one."""
    net.weight("k", 3, 2, 3, 3)
    net.op("Conv", net.data("x", [4, 2, 5, 5]), "k", into="c")
    net.op("Flatten", net.op("Relu", "c", into="r"), into="f")
    linear(net, "f", "fc", 27, 4, into="y")
    net.output("y", [4, 4])
    return [layer("k", "k_grad", reason="opaque"), layer("fc.w", "fc.w_grad")]


def recurrent(net, op_type, gates, states):
    net.weight("w", 1, gates * 4, 3)
    net.weight("r", 1, gates * 4, 4)
    net.weight("b", 1, gates * 8)
    initial = [net.constant(f"start{i}", np.zeros((1, 2, 4), np.float32)) for i in range(states)]
    outputs = ["all", *(f"last{i}" for i in range(states))]
    net.op(op_type, net.data("x", [5, 2, 3]), "w", "r", "b", "", *initial, into=outputs, hidden_size=4)
    net.op("Squeeze", "last0", net.constant("zero", [0]), into="h")
    linear(net, "h", "fc", 4, 3, into="y")
    net.output("y", [2, 3])
    opaque = [layer("w", "w_grad", reason="opaque"), layer("r", "r_grad", reason="opaque")]
    return [*opaque, layer("fc.w", "fc.w_grad")]


@forward()
def lstm(net):
    """Input and recurrent weight of an LSTM."""
    return recurrent(net, "LSTM", 4, 2)


@forward()
def gru(net):
    """Input and recurrent weight of a GRU."""
    return recurrent(net, "GRU", 3, 1)
