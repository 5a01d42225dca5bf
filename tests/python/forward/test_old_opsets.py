"""A model of an old opset is trained in operators of a newer one, and what was trained goes back into the file as it was."""

import numpy as np
import onnx
import onnxruntime
from graphs import Training, make
from losses import log_softmax
from net import Net
from onnx import numpy_helper
from tool import call


def of_opset_9():
    """Operators that say with attributes what later ones say with inputs, and a Softmax over all axes from the first on."""
    net = Net(opset=9)
    net.data("x", ["N", 6], (5, 6))
    net.weight("w", 6, 8)
    net.weight("v", 8, 4)
    net.op("MatMul", "x", "w", into="xw")
    net.op("Clip", "xw", into="clipped", min=-1.0, max=1.0)
    net.op("Unsqueeze", "clipped", into="column", axes=[2])
    net.op("Softmax", "column", into="weighted", axis=1)
    net.op("Squeeze", "weighted", into="row", axes=[2])
    net.op("MatMul", "row", "v", into="z")
    net.output("z", ["N", 4])
    return net


def test_evaluation_update_and_weights(tmp_path):
    net, labels, rate = of_opset_9(), np.array([0, 3, 1, 2, 2]), np.array(0.5, np.float32)
    arguments = ["--loss", "cross-entropy", "--optimizer", "momentum"]
    outputs = ["--eval-out", tmp_path / "eval.onnx", "--update-out", tmp_path / "update.onnx"]
    gradients = Training(make(net.model(), tmp_path, *arguments, *outputs))
    evaluation, update = (Training(onnx.load(tmp_path / f"{name}.onnx")) for name in ("eval", "update"))
    feeds = {**net.feeds, "labels": labels}
    carried, losses = {}, []
    for _ in range(3):
        made = gradients.run({**feeds, **{name: carried[name] for name in ("w", "v") if name in carried}})
        losses.append(made["loss"])
        delivered = {entry["gradient"]: made[entry["gradient"]] for entry in update.map["parameters"]}
        made = update.run({"lr": rate, **delivered, **(carried or net.parameters)})
        entries = [*update.map["parameters"], *update.map["state"]]
        carried = {entry["input"]: made[entry["updated"]] for entry in entries}
    assert losses[0] > losses[1] > losses[2]

    trained = {name: carried[name] for name in ("w", "v")}
    np.savez(tmp_path / "trained.npz", **trained)
    done = call(tmp_path / "forward.onnx", "--weights", tmp_path / "trained.npz", "-o", tmp_path / "tuned.onnx")
    assert done.returncode == 0, done.stderr
    tuned, expected = onnx.load(tmp_path / "tuned.onnx"), net.model()
    for tensor in expected.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(trained[tensor.name], tensor.name))
    assert tuned == expected

    session = onnxruntime.InferenceSession(tuned.SerializeToString(), providers=["CPUExecutionProvider"])
    [z] = session.run(["z"], net.feeds)
    loss = -log_softmax(z.astype(np.float64))[np.arange(5), labels].mean()
    got = evaluation.run({**feeds, **trained})["loss"]
    assert abs(got - loss) < 1e-6 * loss
