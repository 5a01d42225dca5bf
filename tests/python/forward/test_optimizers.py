"""Ten steps of each optimizer, against what PyTorch recorded (onnx/pytorch_steps.py)."""

import numpy as np
import pytest
import pytorch_steps
from conftest import ROOT
from graphs import Training, make, relative_error
from networks import network, stored

RECORDED = np.load(ROOT / "onnx" / "pytorch_steps.npz")
# Two runtimes add up the same float products in another order; Adam's division magnifies that where gradients are small.
TOLERANCE = 1e-5


def train(training, batches, rate=pytorch_steps.RATE):
    return [training.step({"x": x, "labels": t, "lr": np.array(rate, np.float32)}) for x, t in zip(*batches)]


@pytest.mark.parametrize("name", pytorch_steps.OPTIMIZERS)
def test_ten_steps_are_those_of_pytorch(name, tmp_path):
    options, _, _ = pytorch_steps.OPTIMIZERS[name]
    arrays, *batches = pytorch_steps.start()
    training = Training(
        make(network(stored(arrays), "Relu").model(), tmp_path, "--loss", "cross-entropy", "--method", "gradient", *options.split())
    )
    losses = train(training, batches)
    np.testing.assert_allclose(losses, RECORDED[f"{name}/losses"], rtol=TOLERANCE)
    for parameter in arrays:
        assert relative_error(training.carried[parameter], RECORDED[f"{name}/{parameter}"]) < TOLERANCE, parameter
        assert relative_error(arrays[parameter], RECORDED[f"{name}/{parameter}"]) > 1e-2


@pytest.mark.parametrize(
    "options, tolerance", [("--optimizer sgd", 1e-6), ("--optimizer adamw --weight-decay 0.1 --clip-norm 0.2", 0)]
)
def test_the_update_as_a_graph_of_its_own(options, tolerance, tmp_path):
    """Gradients from one graph, the update by the other: the same numbers as from one graph, bit for bit where that keeps the two apart as well."""
    import onnx

    arrays, *batches = pytorch_steps.start()
    model, arguments = network(stored(arrays), "Relu").model(), ["--loss", "cross-entropy", *options.split()]
    whole = Training(make(model, tmp_path, *arguments))
    expected = train(whole, batches)
    gradients = Training(make(model, tmp_path, *arguments, "--update-out", tmp_path / "update.onnx"))
    update = onnx.load(tmp_path / "update.onnx")
    onnx.checker.check_model(update, full_check=True)
    update = Training(update)
    carried, losses, rate = dict(arrays), [], np.array(pytorch_steps.RATE, np.float32)
    for x, t in zip(*batches):
        outputs = gradients.run({"x": x, "labels": t, **{name: carried[name] for name in arrays}})
        losses.append(outputs["loss"])
        delivered = {entry["gradient"]: outputs[entry["gradient"]] for entry in update.map["parameters"]}
        outputs = update.run({"lr": rate, **delivered, **carried})
        entries = [*update.map["parameters"], *update.map["state"]]
        carried = {entry["input"]: outputs[entry["updated"]] for entry in entries}
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    assert carried.keys() == whole.carried.keys()
    for name, value in carried.items():
        assert relative_error(value, whole.carried[name]) <= tolerance, name


def test_evaluation_graph(tmp_path):
    """It computes the loss of trained parameters, which are inputs."""
    import onnx

    arrays, *batches = pytorch_steps.start()
    arguments = ["--loss", "cross-entropy", "--eval-out", tmp_path / "eval.onnx"]
    training = Training(make(network(stored(arrays), "Relu").model(), tmp_path, *arguments))
    evaluation = onnx.load(tmp_path / "eval.onnx")
    onnx.checker.check_model(evaluation, full_check=True)
    assert [node.op_type for node in evaluation.graph.node[:3]] == ["Gemm", "Relu", "Gemm"]
    evaluation = Training(evaluation)
    for x, t in zip(*batches):
        feeds = {"x": x, "labels": t}
        assert evaluation.run({**feeds, **training.carried})["loss"] == pytest.approx(
            training.step({**feeds, "lr": np.array(0.1, np.float32)}), rel=1e-6
        )
