"""One training step of the 5x400 network, compared entry by entry."""

from pathlib import Path

import numpy as np
import pytest

from mlp import WIDTHS, initial_parameters
from training import BATCH, Run

AUTHORS_STEP = Path(__file__).resolve().parents[3] / "onnx" / "authors_step.npz"
LAYERS = range(len(WIDTHS) - 1)

# Parameters are below 1/16 in size: there, neighbouring float32 numbers are this far apart. Two runs in float32 may
# round a parameter to either side.
SPACING = 2.0**-28


def take_step(run, data):
    """One step on the first images of MNIST; returns the loss and how each parameter changed, in double precision."""
    loss = run.step(data.train.images[:BATCH], data.train.labels[:BATCH])
    changes = {}
    for index, layer in enumerate(initial_parameters(WIDTHS, seed=0)):
        for kind, before in zip(("weight", "bias"), layer):
            name = f"fc{index}.{kind}"
            changes[name] = run.state.parameters[name].data.astype(np.float64) - before
    return loss, changes


def authors_changes():
    """The changes that the authors' PyTorch code makes: onnx/authors_step.py."""
    with np.load(AUTHORS_STEP) as kept:
        stored = {name: kept[name].astype(np.float64) for name in kept}
    changes = {f"fc{index}.bias": stored[f"fc{index}.bias"] for index in LAYERS}
    for index in LAYERS:
        name = f"fc{index}.weight"
        changes[name] = stored[f"{name}.left"] @ stored[f"{name}.right"]
    return float(stored["loss"]), changes


def assert_same_changes(actual, expected, rounding=0.0):
    """Every entry agrees to 1e-5 of its tensor's largest change, give or take `rounding`."""
    assert actual.keys() == expected.keys()
    for name, change in expected.items():
        error = np.abs(actual[name] - change).max()
        assert error <= 1e-5 * np.abs(change).max() + rounding, f"{name}: off by {error:.3g}"


def test_the_step_is_the_authors_step(artifacts, rewrite, library, data):
    rewritten = rewrite(artifacts / "training_model.onnx", "--lambda", "1", "--expect", "5")
    loss, changes = take_step(Run(artifacts, 1.0, rewritten, library), data)
    expected_loss, expected_changes = authors_changes()
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert_same_changes(changes, expected_changes)


def test_an_infinite_lambda_gives_the_gradient_step(artifacts, rewrite, library, data):
    rewritten = rewrite(artifacts / "training_model.onnx", "--lambda", "inf", "--expect", "5")
    loss, changes = take_step(Run(artifacts, 0.3, rewritten, library), data)
    expected_loss, expected_changes = take_step(Run(artifacts, 0.3), data)
    assert loss == expected_loss
    assert_same_changes(changes, expected_changes, SPACING)


def test_only_the_selected_layers_change_their_step(artifacts, rewrite, library, data):
    rewritten = rewrite(artifacts / "training_model.onnx", "--lambda", "1", "--layers", "first:2", "--expect", "2")
    _, changes = take_step(Run(artifacts, 1.0, rewritten, library), data)
    _, gradient = take_step(Run(artifacts, 1.0), data)
    _, isaac = authors_changes()
    selected = {"fc0.weight", "fc1.weight"}
    assert_same_changes(changes, {name: (isaac if name in selected else gradient)[name] for name in changes}, SPACING)


def test_a_rewritten_graph_needs_the_library(artifacts, rewrite):
    rewritten = rewrite(artifacts / "training_model.onnx", "--lambda", "1")
    with pytest.raises(Exception, match="ai.isaac"):
        Run(artifacts, 1.0, rewritten)
