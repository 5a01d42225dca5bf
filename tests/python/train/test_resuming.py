"""Runs that are cut off and go on: nothing is lost, and they end as if nothing had happened."""

import json
import random
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
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
