"""Forward models of attention, experts, broadcast weights, embeddings, and of products of two activations.

Letters are those of PATTERNS.md. Products of two activations, which have to stay, are everything that is not listed."""

import numpy as np
from corpus import forward
from dense_models import linear
from net import layer, sliced
from onnx import TensorProto


def attention(net, q, k, v, width, into):
    """softmax(q kᵀ / √width) v on [batch, rows, width]."""
    net.op("MatMul", q, net.op("Transpose", k, into=f"{into}.kt", perm=[0, 2, 1]), into=f"{into}.scores")
    net.op("Div", f"{into}.scores", net.constant(f"{into}.root", float(np.sqrt(width))), into=f"{into}.scaled")
    net.op("Softmax", f"{into}.scaled", into=f"{into}.p", axis=-1)
    return net.op("MatMul", f"{into}.p", v, into=into)


def layer_norm(net, x, name, width):
    """Layer normalization in elementary operators: the generator has no gradient for the one of opset 17."""
    centred = net.op("Sub", x, net.op("ReduceMean", x, into=f"{name}.mean", axes=[-1]), into=f"{name}.c")
    net.op("Mul", centred, centred, into=f"{name}.cc")
    net.op("ReduceMean", f"{name}.cc", into=f"{name}.var", axes=[-1])
    net.op("Add", f"{name}.var", net.constant(f"{name}.eps", 1e-5), into=f"{name}.var_eps")
    net.op("Div", centred, net.op("Sqrt", f"{name}.var_eps", into=f"{name}.std"), into=f"{name}.unit")
    net.op("Mul", f"{name}.unit", net.weight(f"{name}.gamma", width), into=f"{name}.g")
    return net.op("Add", f"{name}.g", net.weight(f"{name}.beta", width), into=f"{name}.y")


def dense(net, x, name, width, out, bias=True, into=None):
    """x wᵀ + b on rank 3, the way that exporters write it: Transpose, MatMul, Add."""
    net.op("Transpose", net.weight(f"{name}.w", out, width), into=f"{name}.wt", perm=[1, 0])
    y = into or f"{name}.y"
    if not bias:
        return net.op("MatMul", x, f"{name}.wt", into=y)
    net.op("MatMul", x, f"{name}.wt", into=f"{name}.xw")
    return net.op("Add", f"{name}.xw", net.weight(f"{name}.b", out), into=y)


@forward()
def packed_attention(net):
    """O: q, k and v are one product of three times the width."""
    net.op("Split", dense(net, net.data("x", [2, 5, 6]), "in", 6, 18), into=["q", "k", "v"], axis=2)
    dense(net, attention(net, "q", "k", "v", 6, "a"), "out", 6, 6, into="y")
    net.output("y", [2, 5, 6])
    return [layer("in.w", "in.wt_grad"), layer("out.w", "out.wt_grad")]


def sliced_attention(net, *names):
    x = net.data("x", [2, 5, 6])
    for name in names:
        net.op("MatMul", x, net.op("Transpose", f"w{name}", into=f"t{name}", perm=[1, 0]), into=name)
    net.op("Identity", attention(net, *names, 6, "a"), into="y")
    net.output("y", [2, 5, 6])
    return [sliced("w", *(f"t{name}_grad" for name in names))]


@forward()
def attention_of_split_weight(net):
    """O: Split cuts one weight into those of q, k and v."""
    net.op("Split", net.weight("w", 18, 6), into=["wq", "wk", "wv"], axis=0)
    return sliced_attention(net, "q", "k", "v")


@forward()
def attention_of_slices(net):
    """O: the same with Slice."""
    net.weight("w", 18, 6)
    for i, name in enumerate("qkv"):
        bounds = [net.constant(f"from{name}", [6 * i]), net.constant(f"to{name}", [6 * i + 6])]
        net.op("Slice", "w", *bounds, net.constant(f"axis{name}", [0]), into=f"w{name}")
    return sliced_attention(net, "q", "k", "v")


@forward()
def attention_of_gathered_weight(net):
    """O: the same with Gather from [3, out, in]."""
    net.weight("w", 3, 6, 6)
    for i, name in enumerate("qkv"):
        net.op("Gather", "w", net.constant(f"at{name}", np.array(i, np.int64)), into=f"w{name}", axis=0)
    return sliced_attention(net, "q", "k", "v")


def queries_keys_values(net, x):
    """Keys have no bias: its gradient is zero but for rounding, and no tolerance fits that."""
    return [dense(net, x, name, 6, 6, bias=name != "k") for name in "qkv"]


@forward(ties=({"q.w", "k.w", "v.w"},))
def attention_on_data(net):
    """Three weights of one shape on the same input."""
    q, k, v = queries_keys_values(net, net.data("x", [2, 5, 6]))
    net.op("Identity", attention(net, q, k, v, 6, "a"), into="y")
    net.output("y", [2, 5, 6])
    return [layer(f"{name}.w", f"{name}.wt_grad") for name in "qkv"]


def bert(net, batch, rows):
    x = net.data("x", [batch, rows, 6], (2, 5, 6))
    q, k, v = queries_keys_values(net, x)
    o = dense(net, attention(net, q, k, v, 6, "a"), "o", 6, 6)
    h = layer_norm(net, net.op("Add", x, o, into="r0"), "n0", 6)
    f = net.op("Relu", dense(net, h, "f0", 6, 12), into="f")
    net.op("Add", h, dense(net, f, "f1", 12, 6), into="r1")
    net.op("Identity", layer_norm(net, "r1", "n1", 6), into="y")
    net.output("y", [batch, rows, 6])
    return [layer(f"{name}.w", f"{name}.wt_grad") for name in ("q", "k", "v", "o", "f0", "f1")]


@forward(opset=13, ties=({"q.w", "k.w", "v.w"},))
def bert_static(net):
    """B: an encoder block; six layers, four products of activations."""
    return bert(net, 2, 5)


@forward(opset=13, ties=({"q.w", "k.w", "v.w"},))
def bert_dynamic(net):
    """The same with symbolic batch and sequence length."""
    return bert(net, "N", "S")


@forward()
def experts(net):
    """L: one weight per expert, [E, in, out] on [E, rows, in]."""
    net.weight("w", 3, 6, 7)
    net.weight("v", 3, 7, 4)
    h = net.op("Relu", net.op("MatMul", net.data("x", [3, 5, 6]), "w", into="z"), into="h")
    net.op("MatMul", h, "v", into="y")
    net.output("y", [3, 5, 4])
    return [layer("w", "w_grad", independent=(0,)), layer("v", "v_grad", independent=(0,))]


@forward()
def experts_of_any_number(net):
    """The same with an input whose sizes are symbolic."""
    net.weight("w", 3, 6, 4)
    net.op("Tanh", net.op("MatMul", net.data("x", ["E", "R", 6], (3, 5, 6)), "w", into="z"), into="y")
    net.output("y", [3, "R", 4])
    return [layer("w", "w_grad", independent=(0,))]


@forward()
def experts_on_any_batches(net):
    """[E, in, out] on [B, E, rows, in] with symbolic B: the axes to sum over are computed, and experts are none of them."""
    net.weight("w", 3, 6, 4)
    net.op("Tanh", net.op("MatMul", net.data("x", ["B", 3, "R", 6], (2, 3, 5, 6)), "w", into="z"), into="y")
    net.output("y", ["B", 3, "R", 4])
    return [layer("w", "MatMul:z_Grad/PreReduceGrad1", independent=(1,))]


@forward()
def experts_on_batches(net):
    """L and M: [E, in, out] on [B, E, rows, in]: rows of all batches, experts apart."""
    net.weight("w", 3, 6, 4)
    net.op("MatMul", net.data("x", [2, 3, 5, 6]), "w", into="z")
    net.op("Tanh", "z", into="y")
    net.output("y", [2, 3, 5, 4])
    return [layer("w", "MatMul:z_Grad/PreReduceGrad1", independent=(1,))]


@forward()
def experts_on_shared_rows(net):
    """M: [E, in, out] on [rows, in], which is repeated for every expert."""
    net.weight("w", 3, 6, 4)
    h = net.op("Relu", linear(net, net.data("x", [5, 6]), "fc", 6, 6), into="h")
    net.op("Tanh", net.op("MatMul", h, "w", into="z"), into="y")
    net.output("y", [3, 5, 4])
    return [layer("fc.w", "fc.w_grad"), layer("w", "w_grad", independent=(0,))]


@forward()
def broadcast_weight(net):
    """M: a weight [1, in, out] on every batch."""
    net.weight("w", 1, 6, 4)
    net.op("Tanh", net.op("MatMul", net.data("x", [3, 5, 6]), "w", into="z"), into="y")
    net.output("y", [3, 5, 4])
    return [layer("w", "MatMul:z_Grad/PreReduceGrad1")]


@forward()
def weight_left_3d(net):
    """K: a weight in front of [B, in, columns]."""
    net.weight("w", 7, 6)
    net.weight("v", 4, 7)
    h = net.op("Tanh", net.op("MatMul", "w", net.data("x", [3, 6, 5]), into="z"), into="h")
    net.op("MatMul", "v", h, into="y")
    net.output("y", [3, 4, 5])
    return [layer("w", "MatMul:z_Grad/PreReduceGrad0"), layer("v", "MatMul:y_Grad/PreReduceGrad0")]


@forward()
def broadcast_weight_on_any_batches(net):
    """M with symbolic sizes."""
    net.weight("w", 1, 6, 4)
    net.op("Tanh", net.op("MatMul", net.data("x", ["B", "R", 6], (3, 5, 6)), "w", into="z"), into="y")
    net.output("y", ["B", "R", 4])
    return [layer("w", "MatMul:z_Grad/PreReduceGrad1")]


@forward()
def weight_left_of_any_batches(net):
    """K with symbolic sizes."""
    net.op("MatMul", net.weight("w", 7, 6), net.data("x", ["B", 6, "C"], (3, 6, 5)), into="z")
    net.op("Tanh", "z", into="y")
    net.output("y", ["B", 7, "C"])
    return [layer("w", "MatMul:z_Grad/PreReduceGrad0")]


@forward()
def rank_one_input(net):
    """B: a single vector is one row."""
    net.weight("w", 6, 7)
    net.weight("v", 7, 4)
    h = net.op("Tanh", net.op("MatMul", net.data("x", [6]), "w", into="z"), into="h")
    net.op("MatMul", h, "v", into="y")
    net.output("y", [4])
    return [layer("w", "w_grad"), layer("v", "v_grad")]


def of_unknown_rank(net, *sizes):
    """An input whose rank is known at run time only."""
    shape = net.data("sizes", ["R"], np.array(sizes), TensorProto.INT64)
    return net.op("Reshape", net.data("flat", [int(np.prod(sizes))]), shape, into="x")


def fixed_output(net, value, *sizes):
    net.op("Reshape", net.op("Tanh", value, into="t"), net.constant("out", list(sizes)), into="y")
    net.output("y", list(sizes))


@forward()
def unknown_rank(net):
    """B: rows of unknown rank before a weight of rank 2 are flattened."""
    net.op("MatMul", of_unknown_rank(net, 3, 5, 6), net.weight("w", 6, 4), into="z")
    fixed_output(net, "z", 15, 4)
    return [layer("w", "w_grad")]


@forward()
def unknown_rank_weight_left(net):
    """N: K with an input of unknown rank; the axes to sum over are computed."""
    net.op("MatMul", net.weight("w", 7, 6), of_unknown_rank(net, 3, 6, 5), into="z")
    fixed_output(net, "z", 21, 5)
    return [layer("w", "MatMul:z_Grad/PreReduceGrad0")]


@forward()
def unknown_rank_broadcast_weight(net):
    """N: M with an input of unknown rank."""
    net.op("MatMul", of_unknown_rank(net, 3, 5, 6), net.weight("w", 1, 6, 4), into="z")
    fixed_output(net, "z", 15, 4)
    return [layer("w", "MatMul:z_Grad/PreReduceGrad1")]


@forward()
def hypernet(net):
    """A layer generates the weight of a product, which is then no layer."""
    x = net.data("x", [5, 6])
    generated = linear(net, net.data("c", [1, 3]), "gen", 3, 24)
    net.op("Reshape", generated, net.constant("shape", [6, 4]), into="w")
    net.op("Tanh", net.op("MatMul", x, "w", into="z"), into="y")
    net.output("y", [5, 4])
    return [layer("gen.w", "gen.w_grad")]


@forward()
def graph_convolution(net):
    """adjacency (x w): the product with the adjacency, which is data, is no layer."""
    net.weight("w0", 6, 7)
    net.weight("w1", 7, 4)
    net.data("adj", [5, 5])
    net.op("MatMul", net.data("x", [5, 6]), "w0", into="xw")
    h = net.op("Relu", net.op("MatMul", "adj", "xw", into="axw"), into="h")
    net.op("MatMul", "adj", net.op("MatMul", h, "w1", into="hw"), into="y")
    net.output("y", [5, 4])
    return [layer("w0", "w0_grad"), layer("w1", "w1_grad")]


@forward()
def featureless_graph_convolution(net):
    """adjacency tanh(adjacency w0) w1: adjacencyᵀ dy is as large as w0, and is no weight gradient."""
    net.data("adj", [6, 6])
    h = net.op("Tanh", net.op("MatMul", "adj", net.weight("w0", 6, 4), into="z"), into="h")
    net.op("MatMul", "adj", net.op("MatMul", h, net.weight("w1", 4, 4), into="hw"), into="y")
    net.output("y", [6, 4])
    return [layer("w0", "w0_grad"), layer("w1", "w1_grad")]


@forward()
def interactions(net):
    """DLRM: z zᵀ of the features of one example."""
    rows = net.op("Reshape", net.weight("table", 9, 4), net.constant("flat", [9, 4]), into="rows")
    net.op("Gather", rows, net.data("ids", [5, 3], np.arange(15).reshape(5, 3) % 9, TensorProto.INT64), into="e")
    bottom = net.op("Relu", linear(net, net.data("x", [5, 6]), "bottom", 6, 4), into="b")
    net.op("Unsqueeze", bottom, net.constant("axis", [1]), into="b1")
    z = net.op("Concat", "b1", "e", into="z", axis=1)
    net.op("MatMul", z, net.op("Transpose", z, into="zt", perm=[0, 2, 1]), into="zz")
    net.op("Flatten", "zz", into="pairs")
    linear(net, "pairs", "top", 16, 2, into="y")
    net.output("y", [5, 2])
    return [layer("bottom.w", "bottom.w_grad"), layer("top.w", "top.w_grad")]


@forward()
def contrastive(net):
    """Two towers whose outputs are multiplied."""
    left = net.op("Tanh", linear(net, net.data("a", [5, 6]), "l", 6, 4), into="ta")
    right = net.op("Tanh", linear(net, net.data("b", [5, 7]), "r", 7, 4), into="tb")
    net.op("MatMul", left, net.op("Transpose", right, into="rt", perm=[1, 0]), into="y")
    net.output("y", [5, 5])
    return [layer("l.w", "l.w_grad"), layer("r.w", "r.w_grad")]


@forward()
def tied_embedding(net):
    """F: the table is the output layer too."""
    net.op("Gather", net.weight("table", 9, 6), token_ids(net), into="e")
    h = net.op("Tanh", dense(net, "e", "fc", 6, 6), into="h")
    net.op("MatMul", h, net.op("Transpose", "table", into="tt", perm=[1, 0]), into="y")
    net.output("y", [2, 5, 9])
    return [layer("fc.w", "fc.wt_grad"), layer("table", "tt_grad", reason="tied-embedding")]


@forward()
def embedding(net):
    """A table that is only looked up has no product."""
    net.op("Gather", net.weight("table", 9, 6), token_ids(net), into="e")
    dense(net, "e", "fc", 6, 4, into="y")
    net.output("y", [2, 5, 4])
    return [layer("fc.w", "fc.wt_grad")]


def token_ids(net):
    return net.data("ids", [2, 5], np.array([[0, 3, 3, 8, 1], [2, 2, 5, 6, 7]]), TensorProto.INT64)


# Before opset 13 the axes of ReduceSum and Unsqueeze are attributes.
forward(opset=12, name="broadcast_weight_opset_12")(broadcast_weight)
forward(opset=12, name="weight_left_3d_opset_12")(weight_left_3d)
forward(opset=12, name="experts_on_batches_opset_12")(experts_on_batches)
