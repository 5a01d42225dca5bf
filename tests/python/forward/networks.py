"""Small dense networks as forward models."""

import numpy as np
from net import Net
from onnx import TensorProto


def network(layers, activation="Tanh", element=TensorProto.FLOAT, opset=17):
    """Layers y = x Wᵀ + b with an activation between them, from `x` to `z`. `layers` are pairs of a name and its (W, b)."""
    net = Net(opset=opset, element=element)
    (_, (first, _)), (_, (last, _)) = layers[0], layers[-1]
    net.data("x", ["N", first.shape[1]], (5, first.shape[1]))
    value = "x"
    for name, (weight, bias) in layers:
        parameter(net, f"{name}.weight", weight)
        parameter(net, f"{name}.bias", bias)
        is_last = weight is last
        value = net.op(
            "Gemm", value, f"{name}.weight", f"{name}.bias", into="z" if is_last else f"{name}.z", transB=1
        )
        if not is_last:
            value = net.op(activation, value, into=f"{name}.h")
    net.output("z", ["N", len(last)])
    return net


def parameter(net, name, value):
    net.parameters[name] = value
    return net.constant(name, value)


def random_layers(widths, seed=0, dtype=np.float32):
    """Pairs for `network`."""
    random = np.random.default_rng(seed)
    return [
        (
            f"fc{i}",
            ((random.standard_normal((m, n)) / np.sqrt(n)).astype(dtype), random.standard_normal(m).astype(dtype)),
        )
        for i, (n, m) in enumerate(zip(widths, widths[1:]))
    ]


def stored(arrays):
    """Pairs for `network` of arrays that are called `<name>.weight` and `<name>.bias`."""
    names = dict.fromkeys(name.rsplit(".", 1)[0] for name in arrays)
    return [(name, (arrays[f"{name}.weight"], arrays[f"{name}.bias"])) for name in names]
