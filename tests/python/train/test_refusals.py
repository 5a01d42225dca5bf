"""Command lines, data and models that isaac-train cannot work with: an error that says what is wrong, and no files."""

import numpy as np
import pytest
from runs import Task, call


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lambda", 0], "damping stays above 0"),
        (["--lr", "fast"], "a schedule is RATE"),
        (["--lr", "inf"], "a learning rate is finite"),
        (["--optimizer", "none"], "trains nothing"),
        (["--lambda-g", 1], "belongs to --method zeta"),
        (["--layers", "9"], "'9' matches no layer"),
        (["--metric", "accuracy"], "belongs to --eval"),
        (["--eval", 0.5, "--metric", "pearson"], "does not fit labels that are class indices"),
        (["--early-stop", 1], "belongs to --eval"),
        (["--sweep", "batch=3"], "cannot be varied"),
        (["--resume"], "--checkpoint"),
        (["--method", "newton"], "possible values"),
        (["--device", "gpu"], "possible values"),
        (["--device", "cuda", "--runtime", "tract"], "--device cuda belongs to --runtime ort"),
    ],
)
def test_command_lines(task, arguments, says):
    out = task.folder / "out.onnx"
    rate = [] if "--lr" in arguments else ["--lr", 0.1]
    done = call(*task.arguments("--out", out, *rate, *arguments))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert not out.exists()


def test_a_forward_model_needs_a_loss(task):
    done = call(task.model, "--data", task.data, "--lr", 0.1)
    assert done.returncode == 2
    assert "--loss" in done.stderr


def refused(task, *arguments):
    """What a run says that ends with status 1."""
    out = task.folder / "out.onnx"
    done = call(*task.arguments("--lr", 0.1, "--out", out, *arguments))
    assert done.returncode == 1, done.stderr
    assert "panicked" not in done.stderr and not out.exists()
    return done.stderr


def test_arrays_that_fit_no_input_are_listed_beside_the_inputs(task):
    np.savez(task.data, first=task.x, second=task.x, labels=task.labels)
    said = refused(task)
    assert "input" in said and "first" in said and "second" in said


def test_another_number_of_features_is_told(task):
    np.savez(task.data, input=task.x[:, :5], labels=task.labels)
    said = refused(task)
    assert "5" in said and "6" in said and "input" in said


def test_other_numbers_of_examples_are_told(task):
    np.savez(task.data, input=task.x, labels=task.labels[:-1])
    assert "48" in refused(task) and "47" in refused(task)


@pytest.mark.parametrize("length", [0, 10, 500])
def test_truncated_data(task, length):
    task.data.write_bytes(task.data.read_bytes()[:length])
    assert str(task.data) in refused(task)


def test_missing_files(task):
    assert "nowhere.npz" in refused(task, "--eval", task.folder / "nowhere.npz")


@pytest.mark.parametrize("length", [0, 100, -20])
def test_truncated_models(task, length):
    task.model.write_bytes(task.model.read_bytes()[:length])
    assert str(task.model) in refused(task)


def test_labels_that_are_no_classes(task):
    np.savez(task.data, input=task.x, labels=np.full(len(task.x), 3))
    assert "3" in refused(task, "--eval", task.data)


def test_no_runtime(task):
    import os
    import subprocess
    from runs import command

    environment = os.environ | {"ORT_DYLIB_PATH": str(task.folder / "no.so")}
    done = subprocess.run(command(*task.arguments("--lr", 0.1)), env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no.so" in done.stderr


def test_a_runtime_without_cuda(task):
    said = refused(task, "--device", "cuda")
    assert "libonnxruntime" in said and "CUDA execution provider is not enabled" in said and "onnxruntime-gpu" in said


def test_a_folder_that_cannot_be_written(task):
    for option in ("--csv", "--weights-out", "--checkpoint", "--plot"):
        said = refused(task, option, task.folder / "nowhere" / "file.svg")
        # Before anything is trained.
        assert "nowhere" in said and "epoch" not in said


def test_what_is_no_file_is_left_alone(task):
    folder, link = task.folder / "folder", task.folder / "link.onnx"
    folder.mkdir()
    for option in ("--out", "--checkpoint", "--csv"):
        done = call(*task.arguments("--lr", 0.1, option, folder))
        assert done.returncode == 1 and "no file" in done.stderr and "epoch" not in done.stderr
    link.symlink_to(task.folder / "target.onnx")
    (task.folder / "target.onnx").touch()
    assert call(*task.arguments("--lr", 0.1, "--out", link)).returncode == 0
    assert link.is_symlink() and (task.folder / "target.onnx").stat().st_size > 0


def test_a_sweep_needs_a_learning_rate(task):
    done = call(*task.arguments("--sweep", "lambda=1,2"))
    assert done.returncode == 2
    assert "--lr" in done.stderr


def test_a_sweep_in_which_every_run_diverges(task):
    out = task.folder / "out.onnx"
    done = call(*task.arguments("--sweep", "lr=1e36,1e37", "lambda=0.01", "--epochs", 3, "--out", out))
    assert done.returncode == 1
    assert "nothing was written" in done.stderr and not out.exists()
