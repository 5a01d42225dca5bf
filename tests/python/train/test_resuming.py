"""Runs that are cut off and go on: nothing is lost, and they end as if nothing had happened."""

import json
import random
import resource
import signal
import subprocess
import time

import mlp
import numpy as np
import onnx
import pytest
from onnx import helper
from runs import Task, call, command, environment, train

METHODS = [
    ["--method", "zeta-star", "--optimizer", "momentum"],
    ["--method", "zeta", "--optimizer", "adam", "--lr", "0.01"],
]


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


def settings(*more):
    """Those of a run, with `more` in the place of the same options."""
    options = {"--epochs": 6, "--batch-size": 7, "--seed": 5, "--lr": 0.1}
    return [part for name, value in options.items() if name not in more for part in (name, value)] + list(more)


def losses(report):
    return [epoch["train_loss"] for epoch in report["epochs"]]


@pytest.mark.parametrize("method", METHODS, ids=["zeta-star", "zeta"])
def test_the_same_seed_gives_the_same_bytes(task, method):
    outs = [task.folder / f"{i}.onnx" for i in range(3)]
    for out, seed in zip(outs, (5, 5, 6)):
        train(*task.arguments(*settings(*method, "--out", out, "--seed", seed)))
    first, second, other = (out.read_bytes() for out in outs)
    assert first == second
    assert first != other


@pytest.mark.parametrize("method", METHODS, ids=["zeta-star", "zeta"])
def test_a_resumed_run_ends_as_one_without_a_break(task, method):
    whole, parts, checkpoint = task.folder / "whole.onnx", task.folder / "parts.onnx", task.folder / "run.safetensors"
    expected = train(*task.arguments(*settings(*method), "--out", whole))
    more = settings(*method, "--checkpoint", checkpoint, "--checkpoint-every", 5)
    stopped = call(*task.arguments(*more, "--max-steps", 17))
    assert stopped.returncode == 0, stopped.stderr
    report = train(*task.arguments(*more, "--resume", "--out", parts))
    assert parts.read_bytes() == whole.read_bytes()
    assert losses(report) == losses(expected)


def test_a_run_that_is_killed_loses_no_more_than_the_steps_since_its_checkpoint(task):
    whole, out, checkpoint = task.folder / "whole.onnx", task.folder / "out.onnx", task.folder / "run.safetensors"
    more = ["--epochs", 400, "--batch-size", 7, "--lr", 0.01, "--optimizer", "momentum"]
    start = time.monotonic()
    train(*task.arguments(*more, "--out", whole))
    duration = time.monotonic() - start
    arguments = task.arguments(*more, "--checkpoint", checkpoint, "--checkpoint-every", 3, "--resume", "--out", out)
    generator = random.Random(0)
    for _ in range(50):
        process = subprocess.Popen(
            command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(generator.uniform(0, duration / 2))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        else:
            assert process.returncode == 0
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole.read_bytes()
    left = {path.name for path in task.folder.iterdir()}
    assert {"out.onnx", "run.safetensors"} <= left
    assert not [name for name in left if name.startswith(".isaac-")]


def test_an_interrupt_saves_a_checkpoint(task):
    out, checkpoint = task.folder / "out.onnx", task.folder / "run.safetensors"
    arguments = task.arguments("--epochs", 1000000, "--lr", 0.01, "--checkpoint", checkpoint, "--out", out)
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "--resume" in error
    assert checkpoint.exists() and not out.exists()


def test_a_full_disk_is_an_error_and_the_last_checkpoint_stays(task):
    out, checkpoint = task.folder / "out.onnx", task.folder / "run.safetensors"
    more = task.arguments(*settings("--checkpoint", checkpoint, "--checkpoint-every", 1))
    stopped = call(*more, "--max-steps", 10)
    assert stopped.returncode == 0, stopped.stderr
    before = checkpoint.read_bytes()

    def small_files_only():
        # A write beyond the limit fails as one to a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    done = call(*more, "--resume", "--out", out, preexec_fn=small_files_only)
    assert done.returncode == 1
    assert "cannot write the checkpoint" in done.stderr and str(checkpoint) in done.stderr
    assert checkpoint.read_bytes() == before
    assert not out.exists()
    assert sorted(path.name for path in task.folder.iterdir()) == [
        "data.npz",
        "forward.onnx",
        "run.safetensors",
        "run.safetensors.previous",
    ]
    assert call(*more, "--resume").returncode == 0


def header(checkpoint):
    """Where a checkpoint says that it stands."""
    content = checkpoint.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["isaac.checkpoint"])


def test_a_run_that_diverges_leaves_the_checkpoint_before(task):
    whole, out, checkpoint = task.folder / "whole.onnx", task.folder / "out.onnx", task.folder / "run.safetensors"
    previous = checkpoint.with_name("run.safetensors.previous")
    train(*task.arguments(*settings("--out", whole)))
    more = ["--checkpoint", checkpoint, "--checkpoint-every", 1]
    assert call(*task.arguments(*settings(*more, "--max-steps", 3))).returncode == 0
    # The step is finite, and what comes of it is not.
    done = call(*task.arguments(*settings(*more, "--resume", "--method", "zeta-star", "--lr", 1e25)))
    assert done.returncode == 1 and "step 5: " in done.stderr
    assert (header(checkpoint)["progress"]["step"], header(previous)["progress"]["step"]) == (4, 3)
    assert f"the checkpoint before the last one is kept: {previous}" in done.stderr
    train(*task.arguments(*settings("--checkpoint", previous, "--resume", "--out", out)))
    assert out.read_bytes() == whole.read_bytes()


def test_early_stopping_can_be_put_off(task):
    held_out, checkpoint = task.folder / "eval.npz", task.folder / "run.safetensors"
    np.savez(held_out, input=task.x, labels=(task.labels + 1) % 3)
    more = ["--eval", held_out, "--epochs", 50, "--lr", 0.5, "--optimizer", "momentum"]
    whole = train(*task.arguments(*settings(*more, "--early-stop", 5, "--out", task.folder / "whole.onnx")))
    more += ["--checkpoint", checkpoint]
    early = train(*task.arguments(*settings(*more, "--early-stop", 2)))
    assert len(early["epochs"]) < len(whole["epochs"])
    later = train(*task.arguments(*settings(*more, "--early-stop", 5, "--resume", "--out", task.folder / "out.onnx")))
    assert losses(later) == losses(whole)
    assert (task.folder / "out.onnx").read_bytes() == (task.folder / "whole.onnx").read_bytes()


def test_a_run_that_ended_within_an_epoch_goes_on_with_that_epoch(task):
    checkpoint, table = task.folder / "run.safetensors", task.folder / "run.csv"
    more = settings("--eval", task.data, "--checkpoint", checkpoint, "--csv", table)
    part = train(*task.arguments(*more, "--max-steps", 10))
    assert [(epoch["epoch"], epoch["step"]) for epoch in part["epochs"]] == [(1, 7), (2, 10)]
    report = train(*task.arguments(*more, "--resume"))
    whole = train(*task.arguments(*settings("--eval", task.data)))
    assert losses(report) == losses(whole)
    assert [epoch["eval"] for epoch in report["epochs"]] == [epoch["eval"] for epoch in whole["epochs"]]
    rows = table.with_suffix(".epochs.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3", "4", "5", "6"]


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_an_interrupt_ends_an_evaluation(tmp_path):
    # Of a network that takes seconds to evaluate, and is trained in one step.
    task = Task(tmp_path, widths=[6, 2000, 2000, 3])
    held_out, table, checkpoint = (task.folder / name for name in ("eval.npz", "run.csv", "run.safetensors"))
    np.savez(held_out, input=np.tile(task.x, (400, 1)), labels=np.tile(task.labels, 400))
    more = ["--eval", held_out, "--batch-size", 48, "--epochs", 1, "--lr", 0.01, "--quiet", "--checkpoint", checkpoint]
    process = subprocess.Popen(command(*task.arguments(*more, "--csv", table)), env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: table.exists() and len(table.read_text().splitlines()) == 2, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "stopped after step 1" in error
    progress = header(checkpoint)["progress"]
    assert (progress["step"], progress["epochs"]) == (1, [])
    report, whole = train(*task.arguments(*more, "--resume")), train(*task.arguments(*more[:-2]))
    assert (losses(report), report["epochs"][0]["eval"]) == (losses(whole), whole["epochs"][0]["eval"])


def test_an_interrupt_ends_a_range_test(task):
    arguments = task.arguments("--find-lr", "--max-steps", 10**9, "--quiet")
    process = subprocess.Popen(command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and output == b""


def test_files_of_killed_runs_are_removed(task):
    out, checkpoint = task.folder / "out.onnx", task.folder / "run.safetensors"
    left = [task.folder / name for name in (".isaac-out.onnx-Ab3xYz", ".isaac-run.safetensors-000000")]
    others = [task.folder / ".isaac-other.onnx-Ab3xYz"]
    for path in left + others:
        path.write_bytes(b"half")
    train(*task.arguments(*settings("--out", out, "--checkpoint", checkpoint)))
    assert {path.name for path in task.folder.glob(".isaac-*")} == {path.name for path in others}


def another_model(task):
    model = onnx.load(task.model)
    model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], ["again"]))
    model.graph.output[0].name = "again"
    onnx.save(model, task.model)


def other_data(task):
    task.x[3, 2] += 1
    np.savez(task.data, input=task.x, labels=task.labels)


def another_order(task):
    np.savez(task.data, input=task.x[::-1], labels=task.labels[::-1])


def other_weights(task):
    onnx.save(mlp.forward_model([6, 12, 3], seed=4), task.model)


OTHERS = {
    "model": ("model", another_model, []),
    "loss": ("model, its loss", None, ["--ignore-index", -1]),
    "frozen": ("what of it is trained", None, ["--freeze", "fc0.*"]),
    "optimizer": ("optimizer", None, ["--optimizer", "momentum"]),
    "decay": ("optimizer", None, ["--weight-decay", 0.1]),
    "method": ("method", None, ["--method", "gradient"]),
    "layers": ("layers", None, ["--layers", "last:1"]),
    "data": ("data or their order", other_data, []),
    "order": ("data or their order", another_order, []),
    "evaluation": ("data that the run is evaluated with", None, ["--eval", "data.npz"]),
}


@pytest.mark.parametrize("change", OTHERS)
def test_what_differs_from_the_run_of_a_checkpoint_is_told(task, change):
    checkpoint, (says, apply, more) = task.folder / "run.safetensors", OTHERS[change]
    common = ["--checkpoint", checkpoint, "--max-steps", 3]
    assert call(*task.arguments(*settings(*common)), cwd=task.folder).returncode == 0
    before = checkpoint.read_bytes()
    if apply:
        apply(task)
    done = call(*task.arguments(*settings(*common, "--resume", *more)), cwd=task.folder)
    assert done.returncode == 1, done.stderr
    assert f"cannot resume {checkpoint}: this run differs in the" in done.stderr and says in done.stderr
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_carries_what_the_model_does_and_nothing_else(task):
    checkpoint = task.folder / "run.safetensors"
    more = settings("--checkpoint", checkpoint, "--max-steps", 3)
    assert call(*task.arguments(*more)).returncode == 0
    content = checkpoint.read_bytes()
    assert content.count(b'"carried/fc0.bias"') == 1
    checkpoint.write_bytes(content.replace(b'"carried/fc0.bias"', b'"carried/fc0.base"'))
    done = call(*task.arguments(*more, "--resume"))
    assert done.returncode == 1
    assert "one of it and the model carries 'fc0.base', the other does not" in done.stderr


def test_what_a_checkpoint_carries_may_start_elsewhere(task):
    # Weights and rates are the run's own; the graph is not.
    checkpoint = task.folder / "run.safetensors"
    assert call(*task.arguments(*settings("--checkpoint", checkpoint, "--max-steps", 3))).returncode == 0
    other_weights(task)
    report = train(*task.arguments(*settings("--checkpoint", checkpoint, "--resume", "--lr", 0.05, "--epochs", 7)))
    assert len(report["epochs"]) == 7


@pytest.mark.parametrize(("change", "what"), [(["--seed", 9], "seed"), (["--batch-size", 8], "batch size")])
def test_a_checkpoint_of_another_run_is_refused(task, change, what):
    checkpoint = task.folder / "run.safetensors"
    more = ["--checkpoint", checkpoint, "--max-steps", 3]
    assert call(*task.arguments(*settings(*more))).returncode == 0
    done = call(*task.arguments(*settings(*more, *change, "--resume")))
    assert done.returncode == 1
    assert f"its {what} is" in done.stderr


def test_files_that_are_no_checkpoints_are_refused(task):
    checkpoint = task.folder / "run.safetensors"
    for content in (b"", b"\xff" * 100, (2).to_bytes(8, "little") + b"{}"):
        checkpoint.write_bytes(content)
        done = call(*task.arguments(*settings("--checkpoint", checkpoint, "--resume")))
        assert done.returncode == 1
        assert str(checkpoint) in done.stderr and "panicked" not in done.stderr


def test_a_run_that_has_ended_early_has_ended(task):
    held_out, checkpoint = task.folder / "eval.npz", task.folder / "run.safetensors"
    np.savez(held_out, input=task.x, labels=(task.labels + 1) % 3)
    more = ["--eval", held_out, "--early-stop", 2, "--epochs", 50, "--lr", 0.5, "--checkpoint", checkpoint]
    outs = [task.folder / name for name in ("first.onnx", "again.onnx")]
    first = train(*task.arguments(*settings(*more, "--out", outs[0])))
    again = train(*task.arguments(*settings(*more, "--out", outs[1], "--resume")))
    assert losses(first) == losses(again)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_the_json_of_a_resumed_run_has_all_epochs(task):
    checkpoint = task.folder / "run.safetensors"
    more = task.arguments(*settings("--checkpoint", checkpoint))
    assert call(*more, "--max-steps", 20).returncode == 0
    report = train(*more, "--resume")
    assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert json.dumps(report)
