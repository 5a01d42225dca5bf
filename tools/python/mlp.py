"""The network of the demo and of the training tests: five linear layers with ReLU between, and its initial weights.

    python tools/python/mlp.py OUT.onnx [--seed 0]
"""

import argparse

import numpy as np

OPSET = 17
WIDTHS = [784, 400, 400, 400, 400, 10]


def initial_parameters(widths, seed):
    """The (weight, bias) of each layer, drawn as PyTorch's nn.Linear draws them: U(-1/sqrt(n), 1/sqrt(n)), n inputs."""
    generator = np.random.default_rng(seed)
    parameters = []
    for fan_in, fan_out in zip(widths, widths[1:]):
        bound = 1.0 / np.sqrt(fan_in)
        weight = generator.uniform(-bound, bound, (fan_out, fan_in))
        bias = generator.uniform(-bound, bound, fan_out)
        parameters.append((weight.astype(np.float32), bias.astype(np.float32)))
    return parameters


def forward_model(widths, seed):
    """The network as PyTorch exports it: Gemm(transB=1) with Relu between, from `input` to `logits`."""
    import onnx  # PyTorch's environment has none
    from onnx import TensorProto, helper, numpy_helper

    nodes, initializers = [], []
    last = len(widths) - 2
    value = "input"
    for index, (weight, bias) in enumerate(initial_parameters(widths, seed)):
        names = [f"fc{index}.weight", f"fc{index}.bias"]
        initializers += [numpy_helper.from_array(array, name) for array, name in zip((weight, bias), names)]
        output = "logits" if index == last else f"fc{index}"
        nodes.append(helper.make_node("Gemm", [value, *names], [output], name=f"Gemm_{index}", transB=1))
        value = output
        if index != last:
            value = f"relu{index}"
            nodes.append(helper.make_node("Relu", [output], [value], name=f"Relu_{index}"))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", widths[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", widths[-1]])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="mlp")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def main():
    import onnx

    parser = argparse.ArgumentParser(description="Writes the network of the demo.")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights")
    arguments = parser.parse_args()
    onnx.save(forward_model(WIDTHS, arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
