"""Trained weights go back into the forward model; everything else stays."""

import numpy as np
import onnx
import pytest
from networks import network, stored
from onnx import numpy_helper
from pytorch_steps import start
from tool import call


@pytest.fixture
def forward(tmp_path):
    model = network(stored(start()[0]), "Relu").model()
    onnx.save(model, tmp_path / "forward.onnx")
    return model, tmp_path / "forward.onnx"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_npz(forward, save, order, dtype, tmp_path):
    model, source = forward
    new = {"fc0.weight": np.array(start()[0]["fc0.weight"] * 2 + 1, dtype, order=order), "fc1.bias": np.arange(4, dtype=np.float32)}
    save(tmp_path / "trained.npz", **new)
    done = call(source, "--weights", tmp_path / "trained.npz", "-o", tmp_path / "tuned.onnx")
    assert done.returncode == 0, done.stderr
    tuned = onnx.load(tmp_path / "tuned.onnx")
    for old, tensor in zip(model.graph.initializer, tuned.graph.initializer):
        expected = new.get(old.name, numpy_helper.to_array(old))
        assert np.array_equal(numpy_helper.to_array(tensor), expected)
        old.CopyFrom(tensor)
    assert model == tuned


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("fc0.weight", np.zeros((6, 8), np.float32), "is float[8, 6], and in"),
        ("fc0.weight", np.zeros((8, 6)), "double[8, 6]"),
        ("fc0", np.zeros((8, 6), np.float32), "no initializer has that name; there are: fc0.weight"),
        ("fc0.weight", np.zeros((8, 6), bool), "bool[8, 6]"),
        ("fc0.weight", np.array(["a"]), "no tensor of ONNX has the type '<U1'"),
    ],
)
def test_weights_that_do_not_fit(forward, name, array, message, tmp_path):
    np.savez(tmp_path / "trained.npz", **{name: array})
    done = call(forward[1], "--weights", tmp_path / "trained.npz", "-o", tmp_path / "tuned.onnx")
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert not (tmp_path / "tuned.onnx").exists()


def test_a_file_without_tensors(forward, tmp_path):
    np.savez(tmp_path / "trained.npz")
    done = call(forward[1], "--weights", tmp_path / "trained.npz", "-o", tmp_path / "tuned.onnx")
    assert done.returncode == 1 and "trained.npz holds no tensors" in done.stderr
    assert not (tmp_path / "tuned.onnx").exists()


def test_damaged_files(forward, tmp_path):
    for name, content in [("a.npz", b"PK\x03\x04"), ("a.safetensors", b"\x10"), ("a.txt", b""), ("none.npz", None)]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        done = call(forward[1], "--weights", tmp_path / name, "-o", tmp_path / "tuned.onnx")
        assert done.returncode == 1 and name in done.stderr and "panicked" not in done.stderr


@pytest.mark.parametrize(
    "option",
    [
        ["--lambda", "1"],
        ["--lambda-g", "1"],
        ["--method", "gradient"],
        ["--layers", "all"],
        ["--with-bias"],
        ["--param", "*"],
        ["--list"],
        ["--explain"],
        ["--json"],
        ["--expect", "2"],
        ["--loss", "mse"],
        ["--optimizer", "adam"],
        ["--freeze", "*"],
        ["--eval-out", "e.onnx"],
        ["--update-out", "u.onnx"],
    ],
    ids=lambda option: option[0],
)
def test_nothing_else_is_done(option, forward, tmp_path):
    """Options that say how to rewrite are refused beside --weights."""
    np.savez(tmp_path / "trained.npz", **{"fc0.weight": start()[0]["fc0.weight"]})
    done = call(forward[1], "--weights", tmp_path / "trained.npz", "-o", tmp_path / "tuned.onnx", *option)
    assert done.returncode == 2 and "--weights" in done.stderr, done.stderr
    assert not (tmp_path / "tuned.onnx").exists()
