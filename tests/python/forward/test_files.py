"""The files: valid ONNX, with everything that the forward model had, and a map that says what is new."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT
from networks import network, random_layers
from graphs import Training, make, relative_error
from net import Net
from onnx import TensorProto, helper, numpy_helper
from tool import call, training_map

FIXTURES = ROOT / "tests" / "fixtures"
NOT_YET = {"addmm_scaled_ts13", "gpt2_hf_ts15"}
NAMES = sorted({path.parent.name for path in FIXTURES.glob("*/forward.onnx")} - NOT_YET)
# ONNX Runtime leaves out different pairs of casts to float16.
TOLERANCES = {"castmix_f16_ts17": 1e-3}
METHODS = ["gradient", "zeta-star", "zeta", "kfac"]
UPDATES = {
    "none": [],
    "sgd": ["--weight-decay", "0.1"],
    "momentum": ["--nesterov", "--clip-norm", "1"],
    "adam": [],
    "adamw": ["--weight-decay", "0.1"],
}


def check(model, forward):
    """Everything that holds for every training graph."""
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    for kind in ("input", "output"):
        had, has = list(getattr(forward.graph, kind)), {value.name: value for value in getattr(model.graph, kind)}
        assert all(value == has[value.name] for value in had if value.name in has)
        assert [value.name for value in had if value.name not in has] == []
    inputs, outputs, roles = names(model.graph.input), names(model.graph.output), training_map(model)
    used = [*roles["data"], *roles["labels"], *roles["scalars"].values()]
    carried = [*roles["parameters"], *roles["state"]]
    used += [entry["input"] for entry in carried]
    # A layer's parameter may be data of the forward model, with a default.
    assert sorted(used) == sorted(set(used)) and set(used) == set(inputs)
    defaults = {tensor.name: tensor for tensor in model.graph.initializer}
    # Every input but data, labels and the learning rate has a default, of its type and shape.
    needed = {*roles["data"], *roles["labels"], roles["scalars"].get("lr")} - {None}
    assert set(inputs) - needed == set(inputs) & set(defaults)
    for value in model.graph.input:
        if value.name in defaults:
            shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            assert (value.type.tensor_type.elem_type, shape) == (defaults[value.name].data_type, list(defaults[value.name].dims))
    results = {entry.get("updated") or entry.get("gradient") for entry in carried} | {roles["loss"]}
    assert results | set(names(forward.graph.output)) == set(outputs)
    made = list(itertools.chain.from_iterable(node.output for node in model.graph.node))
    assert len(set(filter(None, made))) == len(list(filter(None, made)))
    before = {tensor.name: tensor for tensor in forward.graph.initializer}
    assert all(before[name] == defaults[name] for name in before)


def names(values):
    return [value.name for value in values]


@pytest.mark.parametrize("optimizer", UPDATES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["cross-entropy", "soft-cross-entropy", "mse", "bce"])
def test_dense_network(loss, method, optimizer, tmp_path):
    net = network(random_layers([6, 8, 4]))
    forward = net.model()
    more = ["--example-weights", *UPDATES[optimizer]]
    model = make(forward, tmp_path, "--loss", loss, "--method", method, "--optimizer", optimizer, *more)
    check(model, forward)
    operators = {node.domain for node in model.graph.node}
    assert operators == ({""} if method == "gradient" else {"", "ai.isaac"})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_fixture(name, method, tmp_path):
    forward = onnx.load(FIXTURES / name / "forward.onnx")
    arguments = ["--loss", "mse", "--optimizer", "momentum", "--method", method]
    model = make(forward, tmp_path, *arguments)
    check(model, forward)
    recorded = np.load(FIXTURES / name / "io.npz")
    feeds = {key.removeprefix("in/"): recorded[key] for key in recorded if key.startswith("in/")}
    session = onnxruntime.InferenceSession(forward.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = dict(zip(names(session.get_outputs()), session.run(None, feeds)))
    training = Training(model)
    [prediction] = outputs
    labels = np.zeros_like(outputs[prediction])
    got = training.run({**feeds, training.map["labels"][0]: labels, training.map["scalars"]["lr"]: np.float32(0.1)})
    # The model is not yet trained, so that what it computes is what it computed.
    assert relative_error(got[prediction], outputs[prediction]) < TOLERANCES.get(name, 1e-6)


def test_inputs_and_outputs_of_the_same_names(tmp_path):
    """New inputs and outputs give way to what the model has under their names; the map says so."""
    net = Net(opset=17)
    for name, shape in [("labels", [5, 6]), ("lr", [6]), ("seed", [6]), ("lambda_a", [6]), ("example_weights", [6])]:
        net.data(name, shape)
    net.op("Sum", *net.feeds, into="loss")
    net.weight("w", 6, 4)
    net.op("MatMul", "loss", "w", into="w.gradient")
    net.op("Identity", "w.gradient", into="w.updated")
    net.op("Dropout", "w.updated", into="z")
    for name in ("loss", "z", "w.gradient"):
        net.output(name, [5, 6 if name == "loss" else 4])
    forward = net.model()
    arguments = ["--loss", "mse", "--prediction", "z", "--example-weights", "--method", "zeta"]
    model = make(forward, tmp_path, *arguments)
    check(model, forward)
    training = Training(model)
    roles = training.map
    assert roles["data"] == ["labels", "lr", "seed", "lambda_a", "example_weights"]
    assert len(roles["labels"]) == 2 and roles["scalars"].keys() == {"lr", "seed", "lambda_a", "lambda_g"}
    feeds = dict(net.feeds)
    feeds.update(zip(roles["labels"], [np.zeros((5, 4), np.float32), np.ones(5, np.float32)]))
    outputs = training.run({**feeds, roles["scalars"]["lr"]: np.float32(0)})
    assert outputs[roles["loss"]] == pytest.approx((outputs["z"].astype(np.float64) ** 2).mean(), rel=1e-6)
    assert np.array_equal(outputs[roles["parameters"][0]["updated"]], net.parameters["w"])


def test_what_else_a_model_holds_stays(tmp_path):
    """Metadata, documentation, and parameters that are inputs already, as in models of old."""
    net = network(random_layers([6, 8, 4]))
    forward = net.model()
    forward.producer_name, forward.doc_string, forward.graph.doc_string = "someone", "a model", "its graph"
    forward.graph.node[0].doc_string = "a node"
    helper.set_model_props(forward, {"licence": "free"})
    for tensor in list(forward.graph.initializer)[:2]:
        forward.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model = make(forward, tmp_path, "--loss", "cross-entropy")
    check(model, forward)
    assert names(model.graph.input).count("fc0.weight") == 1
    assert (model.producer_name, model.doc_string, model.graph.doc_string) == ("someone", "a model", "its graph")
    assert model.graph.node[0] == forward.graph.node[0]
    assert [entry.value for entry in model.metadata_props if entry.key == "licence"] == ["free"]


def test_old_version_of_the_representation_is_raised(tmp_path):
    """Before 4, every initializer was an input, and no input had a default."""
    forward = network(random_layers([6, 8, 4])).model()
    forward.ir_version = 3
    for tensor in forward.graph.initializer:
        forward.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert make(forward, tmp_path, "--loss", "cross-entropy").ir_version >= 4


def test_weights_in_another_file(tmp_path):
    """External data is found by the graph that is written to another folder."""
    net = network(random_layers([6, 80, 4]))
    forward, elsewhere = net.model(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    inline = make(forward, tmp_path, "--loss", "cross-entropy")
    onnx.save(forward, tmp_path / "external.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1000)
    done = call(tmp_path / "external.onnx", "-o", elsewhere / "train.onnx", "--loss", "cross-entropy")
    assert done.returncode == 0, done.stderr
    external = onnx.load(elsewhere / "train.onnx")
    assert all(map(np.array_equal, *([numpy_helper.to_array(t) for t in m.graph.initializer] for m in (inline, external))))


def test_frozen_and_chosen_parameters(tmp_path):
    forward = network(random_layers([6, 8, 7, 4])).model()
    every = {f"fc{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    cases = [
        (["--freeze", "fc0.*"], {name for name in every if not name.startswith("fc0")}),
        (["--freeze", "*.bias", "--freeze", "fc1.weight"], {"fc0.weight", "fc2.weight"}),
        (["--param", "fc2.*"], {"fc2.weight", "fc2.bias"}),
        (["--param", "*.weight", "--freeze", "fc1.*"], {"fc0.weight", "fc2.weight"}),
        ([], every),
    ]
    for arguments, expected in cases:
        model = make(forward, tmp_path, "--loss", "cross-entropy", "--optimizer", "adam", *arguments)
        check(model, forward)
        roles = training_map(model)
        assert {entry["name"] for entry in roles["parameters"]} == expected
        state = {f"{name}.{kind}" for name in expected for kind in ("mean", "mean_square")}
        assert {entry["name"] for entry in roles["state"]} == state | {"step"}
        frozen = every - expected
        assert not frozen & set(names(model.graph.input)) and frozen <= set(names(model.graph.initializer))


def test_nothing_is_computed_for_frozen_layers(tmp_path):
    """One product for the other weight, none to go further back."""
    forward = network(random_layers([6, 8, 4])).model()
    model = make(forward, tmp_path, "--loss", "mse", "--freeze", "fc0.*", "--expect", 1)
    assert set(names(model.graph.output)) == {"z", "loss", "fc1.weight.updated", "fc1.bias.updated"}
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Gemm") == 2 and operators.count("IsaacGemm") == 1 and "MatMul" not in operators


def test_scalars_are_trained_where_that_is_said(tmp_path):
    net = Net(opset=17)
    net.data("x", [5, 6])
    net.weight("w", 6, 4)
    net.constant("temperature", np.array(0.7, np.float32))
    net.op("Mul", net.op("MatMul", "x", "w", into="y"), "temperature", into="z")
    net.output("z", [5, 4])
    labels, gradients = net.normal(5, 4), {}
    for arguments in [(), ("--param", "*")]:
        model = make(net.model(), tmp_path, "--loss", "mse", "--optimizer", "none", "--method", "gradient", *arguments)
        gradients[arguments] = Training(model).gradients({**net.feeds, "labels": labels})
    default, both = gradients.values()
    assert default.keys() == {"w"} and both.keys() == {"w", "temperature"}
    y = net.feeds["x"].astype(np.float64) @ net.parameters["w"]
    expected = (2 * (y * np.float32(0.7) - labels) * y).mean()
    assert both["temperature"].shape == () and both["temperature"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("broken", ["train.onnx", "eval.onnx", "update.onnx"])
def test_all_files_or_none(broken, tmp_path):
    """Where one of the three cannot be written, the others stay as they were."""
    onnx.save(network(random_layers([6, 8, 4])).model(), tmp_path / "forward.onnx")
    names = ["train.onnx", "eval.onnx", "update.onnx"]
    for name in names:
        (tmp_path / name).mkdir() if name == broken else (tmp_path / name).write_text("old")
    out, evaluation, update = (tmp_path / name for name in names)
    arguments = ["--loss", "cross-entropy", "-o", out, "--eval-out", evaluation, "--update-out", update]
    done = call(tmp_path / "forward.onnx", *arguments)
    assert done.returncode == 1 and broken in done.stderr, done.stderr
    assert all((tmp_path / name).read_text() == "old" for name in names if name != broken)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["forward.onnx", *names])
    (tmp_path / broken).rmdir()
    assert call(tmp_path / "forward.onnx", *arguments).returncode == 0
    assert all(onnx.load(tmp_path / name).graph.node for name in names)
