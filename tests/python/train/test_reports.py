"""What a run tells while it goes on, and looks for good settings."""

import csv
import json
import resource
import signal
import struct
import subprocess
import xml.etree.ElementTree
import zlib

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from runs import Task, call, command, environment, train, weights


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_tables_have_a_row_for_every_step_and_every_epoch(task):
    table = task.folder / "run.csv"
    report = train(*task.arguments("--lr", "linear:0.2:0", "--lambda", 2, "--epochs", 2, "--batch-size", 20, "--csv", table, "--eval", 0.25))
    steps, epochs = rows(table), rows(table.with_suffix(".epochs.csv"))
    # 36 examples are left to train with.
    assert [int(row["step"]) for row in steps] == [1, 2, 3, 4]
    assert [float(row["lr"]) for row in steps] == pytest.approx([0.2, 0.15, 0.1, 0.05])
    assert {float(row["lambda"]) for row in steps} == {2}
    sizes = [20, 16]
    for epoch, record in enumerate(report["epochs"]):
        losses = [float(row["loss"]) for row in steps if int(row["epoch"]) == epoch + 1]
        assert record["train_loss"] == pytest.approx(np.average(losses, weights=sizes))
        assert float(epochs[epoch]["eval_loss"]) == pytest.approx(record["eval"]["loss"])
        assert float(epochs[epoch]["eval_accuracy"]) == pytest.approx(record["eval"]["accuracy"])


def test_a_resumed_table_has_each_step_once(task):
    table, checkpoint = task.folder / "run.csv", task.folder / "run.safetensors"
    more = task.arguments("--lr", 0.1, "--batch-size", 8, "--epochs", 3, "--csv", table, "--checkpoint", checkpoint, "--checkpoint-every", 5)
    assert call(*more, "--max-steps", 7).returncode == 0
    assert call(*more, "--resume").returncode == 0
    assert [int(row["step"]) for row in rows(table)] == list(range(1, 19))


def events():
    """TensorBoard's message of one event, as far as scalars go."""
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    value = file.message_type.add(name="Value")
    value.field.add(name="tag", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    value.field.add(name="simple_value", number=2, type=field.TYPE_FLOAT, label=field.LABEL_OPTIONAL)
    summary = file.message_type.add(name="Summary")
    summary.field.add(name="value", number=1, type=field.TYPE_MESSAGE, type_name=".t.Value", label=field.LABEL_REPEATED)
    event = file.message_type.add(name="Event")
    event.field.add(name="step", number=2, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    event.field.add(name="summary", number=5, type=field.TYPE_MESSAGE, type_name=".t.Summary", label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))


def scalars(path):
    """(tag, step): value, of an event file."""
    found, content, kind = {}, path.read_bytes(), events()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = kind.FromString(content[12 : 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + length :]
    return found


def test_events_say_what_the_table_says(task):
    table, folder = task.folder / "run.csv", task.folder / "events"
    report = train(*task.arguments("--lr", 0.1, "--batch-size", 16, "--epochs", 2, "--csv", table, "--tensorboard", folder, "--eval", task.data))
    [path] = folder.iterdir()
    found = scalars(path)
    for row in rows(table):
        assert found["train/loss", int(row["step"])] == pytest.approx(float(row["loss"]))
    for record in report["epochs"]:
        assert found["eval/accuracy", record["step"]] == pytest.approx(record["eval"]["accuracy"])


def test_a_picture_is_drawn(task):
    plot = task.folder / "run.svg"
    train(*task.arguments("--lr", 0.1, "--epochs", 2, "--plot", plot, "--eval", 0.5))
    texts = {element.text for element in xml.etree.ElementTree.parse(plot).iter() if element.text}
    assert {"accuracy", "loss", "step"} <= {text.strip() for text in texts}


def test_a_picture_can_be_a_png(task):
    plot = task.folder / "run.png"
    train(*task.arguments("--lr", 0.1, "--epochs", 2, "--plot", plot, "--eval", 0.5))
    content = plot.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        chunks[kind] = chunks.get(kind, b"") + data
        at += 12 + length
    width, height, depth, color = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (width, depth, color) == (1100, 8, 2)
    # Each row begins with the filter that it is stored through.
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + 3 * width)


def test_a_sweep_is_ranked_and_its_best_run_is_kept(task):
    out, alone, plot = (task.folder / name for name in ("out.onnx", "alone.onnx", "sweep.svg"))
    common = ["--epochs", 5, "--batch-size", 48, "--eval", task.data]
    report = train(*task.arguments(*common, "--sweep", "lr=0.001,0.3,1e30", "lambda=1,10", "--out", out, "--plot", plot))
    runs = report["runs"]
    losses = [run["epochs"][-1]["eval"]["loss"] for run in runs if not run["diverged"]]
    assert len(runs) == 6 and losses == sorted(losses)
    assert {run["settings"].split()[0] for run in runs[-2:]} == {"lr=1e30"} or all(run["diverged"] for run in runs[-2:])
    # A run of its own with the best settings ends the same.
    best = dict(part.split("=") for part in runs[0]["settings"].split())
    train(*task.arguments(*common, "--lr", best["lr"], "--lambda", best["lambda"], "--out", alone))
    assert out.read_bytes() == alone.read_bytes()
    assert plot.read_text().endswith("</svg>\n")


def test_a_sweep_varies_schedules_with_a_warm_up(task):
    report = train(*task.arguments("--epochs", 2, "--sweep", "lr=0.1,warmup:2,cosine:0.2:0", "seed=1,2"))
    rates = {run["settings"].split()[0] for run in report["runs"]}
    assert len(report["runs"]) == 4 and rates == {"lr=0.1", "lr=warmup:2,cosine:0.2:0"}


def test_json_that_cannot_be_written_is_told_after_the_model_is(task):
    out = task.folder / "out.onnx"
    with open("/dev/full", "w") as full:
        arguments = command(*task.arguments("--lr", 0.1, "--out", out, "--json"))
        done = subprocess.run(arguments, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "cannot write to standard output: No space left" in done.stderr
    assert not np.array_equal(weights(out)["fc0.weight"], weights(task.model)["fc0.weight"])


def test_a_picture_that_cannot_be_written_costs_no_model(task):
    def small_files_only():
        # A write beyond the limit fails as one to a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    out, alone, plot = (task.folder / name for name in ("out.onnx", "alone.onnx", "run.svg"))
    more = ["--lr", 0.1, "--epochs", 3, "--batch-size", 16]
    done = call(*task.arguments(*more, "--out", out, "--plot", plot, "--json"), preexec_fn=small_files_only)
    assert done.returncode == 1 and "--plot cannot be written" in done.stderr
    assert not plot.exists() and len(json.loads(done.stdout)["epochs"]) == 3
    train(*task.arguments(*more, "--out", alone))
    assert out.read_bytes() == alone.read_bytes()


def test_a_learning_rate_is_suggested_at_which_the_loss_sinks(task):
    done = call(*task.arguments("--find-lr", "--method", "gradient", "--batch-size", 16))
    assert done.returncode == 0, done.stderr
    *points, suggestion = done.stdout.splitlines()
    rates = [float(point.split()[0]) for point in points]
    assert rates[0] == pytest.approx(1e-6, rel=1e-2) and rates == sorted(rates)
    rate = float(suggestion.removeprefix("suggestion: --lr "))
    report = train(*task.arguments("--lr", rate, "--method", "gradient", "--epochs", 5, "--batch-size", 16))
    losses = [record["train_loss"] for record in report["epochs"]]
    assert losses == sorted(losses, reverse=True)


def test_weights_are_written_alone(task):
    from safetensors_file import load

    out, alone = task.folder / "out.onnx", task.folder / "weights.safetensors"
    train(*task.arguments("--lr", 0.1, "--epochs", 1, "--optimizer", "adam", "--out", out, "--weights-out", alone))
    expected, got = weights(out), load(alone)
    assert expected.keys() == got.keys()
    assert all(np.array_equal(expected[name], got[name]) for name in expected)
