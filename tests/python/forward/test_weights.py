"""Trained weights go back into the forward model; everything else stays."""

import numpy as np
import onnx
import onnxruntime
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


def externalise(model, folder, location="weights.bin"):
    """The file of a model whose tensors lie in another."""
    folder.mkdir(exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(copy, folder / "forward.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "forward.onnx"


def files(folder):
    return {path.name for path in folder.iterdir()}


def locations(path):
    """By initializer: the file of its data, None where they are in the model."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return {tensor.name: {entry.key: entry.value for entry in tensor.external_data}.get("location") for tensor in tensors}


def arrays(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("which", ["all", "some"])
def test_external_data_stays_external(forward, which, elsewhere, tmp_path):
    """New data go to a file of their own; the old one is brought along if something still refers to it."""
    model, _ = forward
    source = externalise(model, tmp_path / "source")
    before = (source.parent / "weights.bin").read_bytes()
    target = tmp_path / "target" / "tuned.onnx" if elsewhere else tmp_path / "source" / "tuned.onnx"
    target.parent.mkdir(exist_ok=True)
    old = arrays(source)
    new = {name: old[name] + 1 for name in (old if which == "all" else ["fc0.weight", "fc1.bias"])}
    np.savez(tmp_path / "trained.npz", **new)
    for _ in range(2):
        done = call(source, "--weights", tmp_path / "trained.npz", "-o", target)
        assert done.returncode == 0, done.stderr
        assert locations(target) == {name: "tuned.onnx.data" if name in new else "weights.bin" for name in old}
        got = arrays(target)
        assert all(np.array_equal(got[name], new.get(name, old[name])) for name in old)
        kept = {"weights.bin"} if which == "some" else set()
        assert files(target.parent) == {"tuned.onnx", "tuned.onnx.data"} | (kept if elsewhere else {"forward.onnx", "weights.bin"})
    assert (source.parent / "weights.bin").read_bytes() == before
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    onnx.checker.check_model(target, full_check=True)
    assert session.run(None, {"x": np.zeros((2, 6), np.float32)})[0].shape == (2, 4)


def test_the_data_of_the_source_are_never_written_over(forward, tmp_path):
    """Not even where they have the name of the new ones, and the model is written to itself."""
    source = externalise(forward[0], tmp_path / "source", "forward.onnx.data")
    before = (source.parent / "forward.onnx.data").read_bytes()
    old = arrays(source)
    np.savez(tmp_path / "trained.npz", **{"fc0.weight": old["fc0.weight"] + 1})
    done = call(source, "--weights", tmp_path / "trained.npz", "-o", source)
    assert done.returncode == 0, done.stderr
    expected = {name: "forward.onnx.data" for name in old} | {"fc0.weight": "forward.onnx.1.data"}
    assert locations(source) == expected and (source.parent / "forward.onnx.data").read_bytes() == before
    assert np.array_equal(arrays(source)["fc0.weight"], old["fc0.weight"] + 1)
    assert np.array_equal(arrays(source)["fc1.weight"], old["fc1.weight"])


def test_new_data_that_cannot_be_written_leave_the_old_model(forward, tmp_path):
    source = externalise(forward[0], tmp_path / "source")
    np.savez(tmp_path / "trained.npz", **arrays(source))
    (tmp_path / "tuned.onnx").write_text("old")
    (tmp_path / "tuned.onnx.data").mkdir()
    done = call(source, "--weights", tmp_path / "trained.npz", "-o", tmp_path / "tuned.onnx")
    assert done.returncode == 1 and "tuned.onnx.data; nothing was changed" in done.stderr, done.stderr
    assert (tmp_path / "tuned.onnx").read_text() == "old"


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
