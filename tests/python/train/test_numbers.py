"""What isaac-train computes, against formulas in double precision."""

import os
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest
from dense import layer_inputs, output_gradients, softmax, zeta_star
from graphs import relative_error
from runs import Task, call, train, weights


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


def cross_entropy(prediction, labels):
    power = softmax(prediction)
    return -np.log(power[np.arange(len(labels)), labels]).mean(), (power - np.eye(power.shape[1])[labels]) / len(labels)


def steps(arrays, x, labels, rates, dampings):
    """So many steps with all examples at once: the losses, and the parameters after them."""
    arrays, losses = {name: array.astype(np.float64) for name, array in arrays.items()}, []
    for rate, damping in zip(rates, dampings):
        values = layer_inputs(arrays, x)
        loss, dz = cross_entropy(values[-1], labels)
        losses.append(loss)
        for i, g in enumerate(output_gradients(arrays, values, dz)):
            arrays[f"fc{i}.weight"] -= rate * (g.T @ values[i] if np.isinf(damping) else zeta_star(g, values[i], damping))
            arrays[f"fc{i}.bias"] -= rate * g.sum(0)
    return losses, arrays


@pytest.mark.parametrize(
    ("arguments", "rates", "dampings"),
    [
        (["--method", "gradient", "--lr", "0.3"], [0.3] * 4, [np.inf] * 4),
        (["--lambda", "0.1", "--lr", "0.3"], [0.3] * 4, [0.1] * 4),
        (["--lr", "linear:0.4:0.1", "--lambda", "1"], [0.4, 0.325, 0.25, 0.175], [1] * 4),
        (["--lr", "0.2", "--lambda", "step:1:0.1:2"], [0.2] * 4, [1, 1, 0.1, 0.1]),
    ],
)
def test_runs_make_the_steps_of_the_formula(task, arguments, rates, dampings):
    out = task.folder / "out.onnx"
    report = train(*task.arguments(*arguments, "--batch-size", len(task.x), "--epochs", 4, "--out", out))
    losses, expected = steps(weights(task.model), task.x, task.labels, rates, dampings)
    assert [epoch["train_loss"] for epoch in report["epochs"]] == pytest.approx(losses, rel=1e-5)
    got = weights(out)
    for name, array in expected.items():
        assert relative_error(got[name], array) < 1e-5, name


def test_an_epoch_sees_every_example_once(task):
    # Nothing is learnt at a rate of zero, so the mean over the steps of an epoch is the loss of all examples.
    report = train(*task.arguments("--lr", 0, "--batch-size", 7, "--epochs", 2))
    expected, _ = cross_entropy(layer_inputs(weights(task.model), task.x)[-1], task.labels)
    assert [epoch["train_loss"] for epoch in report["epochs"]] == pytest.approx([expected] * 2, rel=1e-6)


def test_the_evaluation_is_that_of_the_written_model(task):
    held_out, out = task.folder / "eval.npz", task.folder / "out.onnx"
    np.savez(held_out, input=task.x[:20] + 0.1, labels=task.labels[:20])
    more = ["--eval", held_out, "--metric", "accuracy", "--metric", "f1", "--lr", 0.5, "--epochs", 3, "--batch-size", 8]
    evaluation = train(*task.arguments(*more, "--out", out))["epochs"][-1]["eval"]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    [prediction] = session.run(None, {"input": task.x[:20] + np.float32(0.1)})
    loss, _ = cross_entropy(prediction.astype(np.float64), task.labels[:20])
    assert evaluation["loss"] == pytest.approx(loss, rel=1e-5)
    assert evaluation["accuracy"] == pytest.approx((prediction.argmax(1) == task.labels[:20]).mean())


def test_only_the_weights_of_the_model_change(task):
    out = task.folder / "out.onnx"
    train(*task.arguments("--lr", 0.1, "--epochs", 1, "--out", out))
    before, after = onnx.load(task.model), onnx.load(out)
    changed = [old.name for old, new in zip(before.graph.initializer, after.graph.initializer) if old != new]
    assert changed == [tensor.name for tensor in before.graph.initializer]
    for model in (before, after):
        del model.graph.initializer[:]
    assert before == after


def test_frozen_parameters_stay(task):
    out = task.folder / "out.onnx"
    train(*task.arguments("--lr", 0.1, "--epochs", 1, "--out", out, "--freeze", "fc0.*"))
    before, after = weights(task.model), weights(out)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"fc1.weight", "fc1.bias"}


def test_an_auto_encoder_takes_its_input_as_labels(tmp_path):
    task = Task(tmp_path, widths=[6, 2, 6])
    report = train(
        task.model, "--data", task.data, "--loss", "mse", "--bind", "labels=input", "--lr", 0, "--epochs", 1, "--batch-size", 48
    )
    prediction = layer_inputs(weights(task.model), task.x)[-1]
    assert report["epochs"][0]["train_loss"] == pytest.approx(((prediction - task.x) ** 2).mean(), rel=1e-5)


def test_a_training_graph_can_be_trained(task):
    graph, out = task.folder / "step.onnx", task.folder / "out.onnx"
    rewrite = [os.environ["ISAAC_REWRITE"], task.model, "-o", graph, "--loss", "cross-entropy", "--lambda", "0.5"]
    subprocess.run(rewrite, check=True, capture_output=True)
    report = train(
        graph, "--data", task.data, "--lr", 0.3, "--lambda", 0.5, "--epochs", 3, "--batch-size", len(task.x), "--out", out
    )
    losses, expected = steps(weights(task.model), task.x, task.labels, [0.3] * 3, [0.5] * 3)
    assert [epoch["train_loss"] for epoch in report["epochs"]] == pytest.approx(losses, rel=1e-5)
    got = weights(out)
    for name, array in expected.items():
        assert relative_error(got[name], array) < 1e-5, name


def test_early_stopping_goes_back_to_the_best_epoch(task):
    # The labels of the held-out examples are wrong, so the better the fit, the higher their loss.
    held_out, out = task.folder / "eval.npz", task.folder / "out.onnx"
    np.savez(held_out, input=task.x, labels=(task.labels + 1) % 3)
    more = ["--eval", held_out, "--lr", 0.5, "--epochs", 50, "--early-stop", 2, "--batch-size", 48, "--out", out]
    report = train(*task.arguments(*more))
    losses = [epoch["eval"]["loss"] for epoch in report["epochs"]]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + 2
    straight = task.folder / "straight.onnx"
    train(*task.arguments("--lr", 0.5, "--epochs", best, "--batch-size", 48, "--out", straight))
    assert out.read_bytes() == straight.read_bytes()


@pytest.mark.parametrize("options", [["ignored"], ["weighted"], ["ignored", "weighted"]], ids="-".join)
def test_losses_are_means_over_what_counts(task, options):
    # The batches count differently.
    random = np.random.default_rng(1)
    arrays, counts, more = {"labels": task.labels.copy()}, np.ones(len(task.x)), []
    if "ignored" in options:
        arrays["labels"][random.random(len(task.x)) < 0.5] = -100
        counts *= arrays["labels"] != -100
        more += ["--ignore-index", -100]
    if "weighted" in options:
        arrays["weights"] = random.uniform(0.1, 3, len(task.x)).astype(np.float32)
        counts *= arrays["weights"]
        more += ["--example-weights"]
    labels = arrays["labels"]
    np.savez(task.data, input=task.x, **arrays)
    report = train(*task.arguments("--lr", 0, "--epochs", 1, "--batch-size", 12, "--eval", task.data, *more))
    prediction = layer_inputs(weights(task.model), task.x)[-1]
    each = -np.log(softmax(prediction)[np.arange(len(labels)), np.maximum(labels, 0)])
    expected = (each * counts).sum() / counts.sum()
    [epoch] = report["epochs"]
    assert epoch["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert epoch["eval"]["loss"] == pytest.approx(expected, rel=1e-5)
    # A training graph that is given says of its labels which count.
    graph = task.folder / "step.onnx"
    rewrite = [os.environ["ISAAC_REWRITE"], task.model, "-o", graph, "--loss", "cross-entropy", *more]
    subprocess.run([*map(str, rewrite)], check=True, capture_output=True)
    report = train(graph, "--data", task.data, "--lr", 0, "--batch-size", 12)
    assert report["epochs"][0]["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["zeta-star", "zeta", "gradient"])
def test_batches_in_which_nothing_counts_change_nothing(task, method):
    out, labels = task.folder / "out.onnx", np.full(48, -100)
    np.savez(task.data, input=task.x, labels=labels)
    more = ["--ignore-index", -100, "--lr", 0.5, "--batch-size", 16, "--method", method, "--epochs", 2]
    report = train(*task.arguments(*more, "--out", out, "--eval", task.data))
    before, after = weights(task.model), weights(out)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    # The mean over nothing is no number.
    assert [epoch["train_loss"] for epoch in report["epochs"]] == ["NaN", "NaN"]


def test_a_run_that_ends_within_an_epoch_is_evaluated(task):
    out, table = task.folder / "out.onnx", task.folder / "run.csv"
    more = ["--lr", 0.5, "--batch-size", 8, "--max-steps", 8, "--epochs", 9, "--eval", task.data, "--csv", table]
    report = train(*task.arguments(*more, "--out", out))
    first, part = report["epochs"]
    assert (first["step"], part["epoch"], part["step"]) == (6, 2, 8)
    with open(table) as file:
        losses = [float(line.split(",")[2]) for line in file.readlines()[1:]]
    assert part["train_loss"] == pytest.approx(np.mean(losses[6:]))
    loss, _ = cross_entropy(layer_inputs(weights(out), task.x)[-1], task.labels)
    assert part["eval"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_a_layer_whose_curvature_breaks_down_is_named(task):
    # Inputs of rank one: with next to no damping, no precision can tell their products from a singular matrix.
    out = task.folder / "out.onnx"
    task.x[:] = task.x[:1] * np.arange(1, 49)[:, None]
    np.savez(task.data, input=task.x, labels=task.labels)
    done = call(*task.arguments("--lr", 0.1, "--lambda", 1e-25, "--batch-size", 24, "--layers", 1, "--out", out))
    assert done.returncode == 1
    assert "step 1: IsaacGemm node" in done.stderr and "lambda = 1" in done.stderr
    assert "layer 1, 'fc0.weight', diverged" in done.stderr and "the learning rate is 0.1" in done.stderr
    assert not out.exists()


def test_a_last_update_that_is_not_finite_is_not_written(task):
    # One step, whose loss is finite.
    out = task.folder / "out.onnx"
    done = call(*task.arguments("--method", "gradient", "--lr", 3e38, "--batch-size", 48, "--weight-decay", 1e30, "--out", out))
    assert done.returncode == 1, done.stderr
    assert "the update of step 1 made 'fc" in done.stderr
    assert not out.exists()


def test_numbers_that_are_not_finite_stop_the_run(task):
    out = task.folder / "out.onnx"
    done = call(*task.arguments("--lr", 1e38, "--lambda", 0.01, "--epochs", 5, "--out", out))
    assert done.returncode == 1
    assert "the loss is" in done.stderr and "step " in done.stderr
    assert "learning rate" in done.stderr and "lambda 0.01" in done.stderr
    assert not out.exists()
