"""Command lines, data and models that isaac-train cannot work with: an error that says what is wrong, and no files."""

import os
import subprocess

import numpy as np
import onnx
import pytest
from runs import Task, call, command, weights


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lambda", 0], "damping stays above 0"),
        (["--lr", "fast"], "a schedule is RATE"),
        (["--lr", "inf"], "a learning rate is finite"),
        (["--schedule", "cosine"], "a schedule is a part of the value that it changes: --lr cosine:0.1:0"),
        (["--optimizer", "none"], "trains nothing"),
        (["--lambda-g", 1], "belongs to --method zeta"),
        (["--layers", "9"], "'9' matches no layer"),
        (["--metric", "accuracy"], "belongs to --eval"),
        (["--eval", 0.5, "--metric", "pearson"], "does not fit labels that are class indices"),
        (["--eval", 0.5, "--metric", "f1", "--metric", "f1"], "measured once"),
        (["--method", "gradient", "--lambda", 1], "--lambda belongs to layers that are conditioned"),
        (["--method", "gradient", "--sweep", "lambda=1,2"], "--lambda belongs to layers that are conditioned"),
        (["--early-stop", 1], "belongs to --eval"),
        (["--plot", "run.jpg"], "run.jpg: a plot is a file named .svg or .png"),
        (["--sweep", "batch=3"], "cannot be varied"),
        (["--resume"], "--checkpoint"),
        (["--method", "newton"], "possible values"),
        (["--device", "gpu"], "possible values"),
        (["--device", "cuda", "--runtime", "tract"], "--device cuda belongs to --runtime ort"),
        (["--runtime", "tract"], "--threads belongs to --runtime ort"),
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


def training_graph(task, *options):
    """The file of a training graph of the task's model."""
    graph = task.folder / "step.onnx"
    rewrite = [os.environ["ISAAC_REWRITE"], task.model, "-o", graph, "--loss", "cross-entropy", *options]
    subprocess.run([*map(str, rewrite)], check=True, capture_output=True)
    return graph


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
    environment = os.environ | {"ORT_DYLIB_PATH": str(task.folder / "no.so")}
    done = subprocess.run(command(*task.arguments("--lr", 0.1)), env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no.so" in done.stderr


def test_without_a_runtime_what_is_built_in_takes_its_place(task):
    bare = {name: value for name, value in os.environ.items() if name not in ("ORT_DYLIB_PATH", "LD_LIBRARY_PATH")} | {"PATH": ""}
    arguments = task.arguments("--lr", 0.1)
    done = subprocess.run([os.environ["ISAAC_TRAIN"], *map(str, arguments)], env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no ONNX Runtime was found" in done.stderr and "isaac-train: tract" in done.stderr
    # Not where one is asked for.
    arguments += ["--runtime", "ort"]
    done = subprocess.run([os.environ["ISAAC_TRAIN"], *map(str, arguments)], env=bare, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no ONNX Runtime was found: install it" in done.stderr


@pytest.mark.parametrize(
    ("label", "more", "allowed"),
    [
        (3, [], "from 0 to 2"),
        (-1, [], "from 0 to 2"),
        (-2, ["--ignore-index", -1], "from 0 to 2, or -1, which does not count"),
    ],
)
def test_labels_that_are_no_classes_are_found_before_training(task, label, more, allowed):
    task.labels[17] = label
    np.savez(task.data, input=task.x, labels=task.labels)
    graph, out = training_graph(task, *more), task.folder / "tuned.onnx"
    of_graph = call(graph, "--data", task.data, "--lr", 0.1, "--out", out)
    assert of_graph.returncode == 1 and not out.exists()
    for said in (refused(task, *more), of_graph.stderr):
        assert f"{task.data}: 'labels', row 17, counted from 0: the label is {label}, and" in said
        assert said.rstrip().endswith(f"are {allowed}") and "epoch" not in said


def test_labels_of_what_is_evaluated_are_checked_too(task):
    held_out = task.folder / "eval.npz"
    np.savez(held_out, input=task.x[:2], labels=[0, -3])
    assert f"{held_out}: 'labels', row 1, counted from 0: the label is -3" in refused(task, "--eval", held_out)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_data_without_a_number_is_no_divergence(task, number):
    task.x[5, 2] = float(number)
    np.savez(task.data, input=task.x, labels=task.labels)
    said = refused(task)
    assert f"{task.data}: 'input', row 5, counted from 0: " in said
    assert f"{number.replace('nan', 'NaN')} at [2] is no finite number" in said


def test_a_column_without_a_number_is_named(task):
    table = task.folder / "data.csv"
    task.x[5, 2] = np.nan
    rows = np.column_stack([task.x, task.labels])
    np.savetxt(table, rows, delimiter=",", header="a,b,c,d,e,f,y", comments="")
    done = call(task.model, "--data", table, "--loss", "cross-entropy", "--lr", 0.1)
    assert done.returncode == 1
    assert f"{table}: 'c', row 5, counted from 0: NaN is no finite number" in done.stderr


OVER_EACH_OTHER = {
    "outputs": (["--out", "a.onnx", "--weights-out", "a.onnx"], "--weights-out", "--out"),
    "table of epochs": (["--csv", "a.csv", "--weights-out", "a.epochs.csv"], "the table of epochs of --csv", "--weights-out"),
    "other spelling": (["--csv", "a.csv", "--plot", "./x/../a.csv"], "--plot", "--csv"),
    "link": (["--checkpoint", "link", "--weights-out", "a.safetensors"], "--checkpoint", "--weights-out"),
    "last checkpoint": (
        ["--checkpoint", "a", "--weights-out", "a.previous"],
        "the last but one of --checkpoint",
        "--weights-out",
    ),
    "folder": (["--tensorboard", "a", "--csv", "a"], "--tensorboard", "--csv"),
    "model": (["--out", "forward.onnx"], "--out", "MODEL"),
    "data": (["--csv", "data.npz"], "--csv", "--data"),
    "evaluation": (["--eval", "data2.npz", "--checkpoint", "data2.npz"], "--checkpoint", "--eval"),
    "external data": (["--weights-out", "forward.bin"], "--weights-out", "the external data of MODEL"),
    "copied data": (["--out", "x/out.onnx", "--csv", "x/forward.bin"], "the external data of --out", "--csv"),
    "new data": (["--out", "x/out.onnx", "--csv", "x/out.onnx.data"], "the external data of --out", "--csv"),
}


@pytest.mark.parametrize("case", OVER_EACH_OTHER)
def test_nothing_is_written_over_what_is_read_or_written_elsewhere(task, case):
    arguments, *options = OVER_EACH_OTHER[case]
    (task.folder / "x").mkdir()
    (task.folder / "link").symlink_to("a.safetensors")
    (task.folder / "a.safetensors").touch()
    (task.folder / "data2.npz").write_bytes(task.data.read_bytes())
    externalise(task)
    before = contents(task.folder)
    done = call(*task.arguments("--lr", 0.1, *arguments), cwd=task.folder)
    assert done.returncode == 2, done.stderr
    assert "would be written over" in done.stderr and all(option in done.stderr for option in options)
    assert contents(task.folder) == before


def externalise(task, location="forward.bin"):
    """Puts the model's weights into a file beside it."""
    model = onnx.load(task.model)
    onnx.save(model, task.model, save_as_external_data=True, location=location, size_threshold=0)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_external_data_in_a_folder_of_its_own_is_brought_along(task):
    (task.folder / "weights").mkdir()
    (task.folder / "x").mkdir()
    old = weights(task.model)
    externalise(task, "weights/forward.bin")
    done = call(*task.arguments("--lr", 0.1, "--freeze", "fc0.*", "--out", task.folder / "x" / "out.onnx"))
    assert done.returncode == 0, done.stderr
    assert (task.folder / "x" / "weights" / "forward.bin").is_file()
    new = weights(task.folder / "x" / "out.onnx")
    assert {name for name in old if not np.array_equal(old[name], new[name])} == {"fc1.weight", "fc1.bias"}


def test_new_external_data_are_all_that_is_written_where_all_of_it_is_trained(task):
    (task.folder / "x").mkdir()
    old = weights(task.model)
    externalise(task)
    done = call(*task.arguments("--lr", 0.1, "--out", task.folder / "x" / "out.onnx"))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (task.folder / "x").iterdir()} == {"out.onnx", "out.onnx.data"}
    new = weights(task.folder / "x" / "out.onnx")
    assert not any(np.array_equal(old[name], new[name]) for name in old)


def test_other_external_data_of_the_same_name_is_told_before_training(task):
    externalise(task)
    (task.folder / "x").mkdir()
    (task.folder / "x" / "forward.bin").write_bytes(b"of another model")
    done = call(*task.arguments("--lr", 0.1, "--out", task.folder / "x" / "out.onnx"))
    assert done.returncode == 1
    assert "another file of that name is there" in done.stderr and "epoch" not in done.stderr
    assert (task.folder / "x" / "forward.bin").read_bytes() == b"of another model"


def test_a_training_graph_takes_no_options_that_would_condition_it(task):
    graph = training_graph(task, "--method", "gradient")
    for option, value in (("--method", "gradient"), ("--layers", "1"), ("--allow", "tied-embedding"), ("--param", "fc0.*"), ("--lambda", 1)):
        done = call(graph, "--data", task.data, "--lr", 0.1, option, value)
        assert done.returncode == 2, done.stderr
        assert option in done.stderr and "epoch" not in done.stderr
    assert call(graph, "--data", task.data, "--lr", 0.1).returncode == 0


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
