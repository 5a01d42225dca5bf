"""Training graphs as ONNX Runtime 1.19.2's own generator writes them, from small forward models.

    python onnx/corpus.py FOLDER

writes them all. Each model function draws a forward pass and says, from PATTERNS.md, which layers a rewriter has to find in the
training graph that the generator makes of it. Names of products follow from the generator's rule: the gradient of T is T_grad, or
T_grad_0, T_grad_1, ... where several add up.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from net import Case, Net
from onnx import TensorProto

FORWARD = {}


def forward(opset=17, element=TensorProto.FLOAT, ties=(), tolerance=1e-5, name=None):
    """Registers a function that draws a forward pass whose output is `y`, and returns its layers."""

    def register(draw):
        FORWARD[name or draw.__name__] = (draw, opset, element, ties, tolerance)
        return draw

    return register


def generator():
    """ONNX Runtime's generator. It imports torch, and uses none of it."""
    if "torch" not in sys.modules and importlib.util.find_spec("torch") is None:
        torch = types.ModuleType("torch")
        torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
        torch.optim = types.SimpleNamespace(Optimizer=object)
        sys.modules["torch"] = torch
    from onnxruntime.training import artifacts

    return artifacts


def generate(name):
    """The training graph of a registered forward model."""
    draw, opset, element, ties, tolerance = FORWARD[name]
    net = Net(opset, element)
    layers = draw(net)
    return train(name, net, layers, ties, tolerance)


def train(name, net, layers, ties=(), tolerance=1e-5):
    """The training graph that the generator makes of a forward pass whose output is `y`."""
    model = net.model()
    frozen = [parameter for parameter in net.parameters if parameter not in net.trained]
    with tempfile.TemporaryDirectory() as folder:
        artifacts = generator()
        artifacts.generate_artifacts(
            model,
            requires_grad=net.trained,
            frozen_params=frozen,
            loss=artifacts.LossType.MSELoss,
            artifact_directory=folder,
        )
        training = onnx.load(Path(folder) / "training_model.onnx")
    # The generator imports every domain that the process knows, custom ones too.
    imports = [opset for opset in training.opset_import if opset.domain != "ai.isaac"]
    del training.opset_import[:]
    training.opset_import.extend(imports)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y = session.run(["y"], net.feeds)[0]
    feeds = {**net.feeds, **net.parameters, "target": y + net.normal(*y.shape).astype(y.dtype)}
    feeds = complete(training, feeds)
    return Case(name, training, feeds, layers, loss_of(training), ties, tolerance, forward=model)


def loss_of(training):
    """The one output that is no accumulator's."""
    [loss] = [value.name for value in training.graph.output if not value.name.endswith(".accumulation.out")]
    return loss


def complete(training, feeds):
    """`feeds`, with empty gradient buffers, for the inputs that the generator declared."""
    known = dict(feeds, lazy_reset_grad=np.array([True]))
    for value in training.graph.input:
        if value.name.endswith(".accumulation.buffer"):
            known[value.name] = np.zeros_like(feeds[value.name.removesuffix("_grad.accumulation.buffer")])
    return {value.name: known[value.name] for value in training.graph.input}


def names():
    """All registered models."""
    for module in ("dense_models", "attention_models"):
        importlib.import_module(module)
    return sorted(FORWARD)


if __name__ == "__main__":
    sys.modules["corpus"] = sys.modules["__main__"]
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for case in names():
        onnx.save(generate(case).model, target / f"{case}.onnx")
