"""Makes spiral_step.onnx: a whole training step in standard ONNX operators, which any ONNX Runtime can run.

    python onnx/spiral_step.py

A small tanh network tells two spirals apart. Weights are inputs with initializers as defaults; the step's results
are the loss and each updated weight, named `<weight>.updated`: feed them back, and the network trains. The learning
rate is an input too. `metadata_props["isaac.training"]` tells a program which is which.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "python"))
from mlp import initial_parameters  # noqa: E402

WIDTHS = [2, 48, 48, 2]
LAYERS = len(WIDTHS) - 1


def forward():
    """x -> h0 -> h1 -> logits, and the mean cross-entropy."""
    nodes = []
    for index in range(LAYERS):
        source = "x" if index == 0 else f"h{index - 1}"
        target = "logits" if index == LAYERS - 1 else f"z{index}"
        nodes.append(helper.make_node("Gemm", [source, f"fc{index}.weight", f"fc{index}.bias"], [target], transB=1))
        if target != "logits":
            nodes.append(helper.make_node("Tanh", [target], [f"h{index}"]))
    return nodes + [
        helper.make_node("OneHot", ["labels", "classes", "off_on"], ["target"]),
        helper.make_node("LogSoftmax", ["logits"], ["log_probability"], axis=-1),
        helper.make_node("Mul", ["target", "log_probability"], ["likelihood"]),
        helper.make_node("ReduceSum", ["likelihood"], ["likelihood_sum"], keepdims=0),
        helper.make_node("Shape", ["labels"], ["rows_int"]),
        helper.make_node("Cast", ["rows_int"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["likelihood_sum"], ["loss_sum"]),
        helper.make_node("Div", ["loss_sum", "rows"], ["loss"]),
    ]


def backward():
    """The gradients, last layer first, and the update of each parameter."""
    nodes = [
        helper.make_node("Softmax", ["logits"], ["probability"], axis=-1),
        helper.make_node("Sub", ["probability", "target"], ["residual"]),
        helper.make_node("Div", ["residual", "rows"], [f"z{LAYERS - 1}_grad"]),
    ]
    for index in reversed(range(LAYERS)):
        gradient, source = f"z{index}_grad", "x" if index == 0 else f"h{index - 1}"
        nodes += [
            helper.make_node("Gemm", [gradient, source], [f"fc{index}.weight_grad"], transA=1),
            helper.make_node("ReduceSum", [gradient, "batch_axis"], [f"fc{index}.bias_grad"], keepdims=0),
        ]
        if index > 0:
            nodes += [
                helper.make_node("MatMul", [gradient, f"fc{index}.weight"], [f"{source}_grad"]),
                helper.make_node("Mul", [source, source], [f"{source}_squared"]),
                helper.make_node("Sub", ["one", f"{source}_squared"], [f"{source}_slope"]),
                helper.make_node("Mul", [f"{source}_grad", f"{source}_slope"], [f"z{index - 1}_grad"]),
            ]
    for name in parameter_names():
        nodes += [
            helper.make_node("Mul", ["learning_rate", f"{name}_grad"], [f"{name}_step"]),
            helper.make_node("Sub", [name, f"{name}_step"], [f"{name}.updated"]),
        ]
    return nodes


def parameter_names():
    return [f"fc{index}.{kind}" for index in range(LAYERS) for kind in ("weight", "bias")]


def training_map():
    """What a program needs to know to drive the step."""
    return {
        "version": 1,
        "data": ["x"],
        "labels": ["labels"],
        "loss": "loss",
        "scalars": {"lr": "learning_rate"},
        "parameters": [
            {"name": name, "input": name, "gradient": None, "updated": f"{name}.updated"} for name in parameter_names()
        ],
        "state": [],
    }


def step_model():
    parameters = dict(zip(parameter_names(), (array for layer in initial_parameters(WIDTHS, 0) for array in layer)))
    constants = {
        "classes": np.int64(WIDTHS[-1]),
        "off_on": np.array([0, 1], np.float32),
        "batch_axis": np.array([0], np.int64),
        "one": np.float32(1),
    }
    floats = {name: array.shape for name, array in parameters.items()}
    inputs = {"x": ["batch", WIDTHS[0]], "learning_rate": [], **floats}
    outputs = {"loss": [1], **{f"{name}.updated": shape for name, shape in floats.items()}}
    graph = helper.make_graph(
        forward() + backward(),
        "spiral_step",
        [helper.make_tensor_value_info("labels", TensorProto.INT64, ["batch"])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (parameters | constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="spiral_step")
    model.ir_version = 8
    helper.set_model_props(model, {"isaac.training": json.dumps(training_map())})
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    onnx.save(step_model(), Path(__file__).with_suffix(".onnx"))
