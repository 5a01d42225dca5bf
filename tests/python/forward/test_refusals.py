"""What cannot be trained as asked for is refused with what is wrong and what there is, and nothing is written."""

import onnx
import pytest
from conftest import ROOT
from networks import network, random_layers
from net import Net
from onnx import TensorProto, helper
from tool import call

CE = ["--loss", "cross-entropy"]


def refusal(model, folder, *arguments):
    """The exit status and what was said, of a model or a file."""
    source, target = folder / "forward.onnx", folder / "train.onnx"
    if isinstance(model, onnx.ModelProto):
        onnx.save(model, source)
    else:
        source = model
    before = set(folder.iterdir())
    done = call(source, "-o", target, *arguments)
    assert set(folder.iterdir()) == before, "something was written"
    assert not done.stdout and "panicked" not in done.stderr
    return done.returncode, done.stderr


def dense(*more):
    """A network with other outputs."""
    net = network(random_layers([6, 8, 4]))
    for name, shape, element in more:
        net.output(name, shape, element)
    return net


# By name: the options, the exit status, and all of what the message has to say.
OF_A_DENSE_NETWORK = {
    "freeze nothing": ([*CE, "--freeze", "nothing*"], 2, ["'nothing*'", "fc0.weight, fc0.bias, fc1.weight, fc1.bias"]),
    "train nothing": ([*CE, "--param", "nothing"], 2, ["'nothing'", "fc0.weight, fc0.bias, fc1.weight, fc1.bias"]),
    "freeze everything": ([*CE, "--freeze", "*"], 1, ["depends on no floating-point initializer that is trained"]),
    "freeze what is trained": ([*CE, "--param", "fc0.*", "--freeze", "fc0.*"], 1, ["no floating-point initializer"]),
    "prediction": ([*CE, "--prediction", "y"], 2, ["no output 'y'", "there are: z"]),
    "inner value": ([*CE, "--prediction", "fc0.h"], 2, ["no output 'fc0.h'", "there are: z"]),
    "loss output": (["--loss-output", "cost"], 2, ["no output 'cost'", "there are: z"]),
    "loss output with axes": (["--loss-output", "z"], 1, ["'z' is no scalar"]),
    "class axis of examples": ([*CE, "--class-axis", "0"], 1, ["--class-axis 0 for 'z', which has 2 axes"]),
    "class axis behind": ([*CE, "--class-axis", "2"], 1, ["--class-axis 2 for 'z', which has 2 axes"]),
    "class axis before": ([*CE, "--class-axis", "-3"], 1, ["--class-axis -3 for 'z', which has 2 axes"]),
    "no distribution": (["--loss", "l1", "--method", "zeta"], 1, ["this loss stands for none"]),
    "ignore index of mse": (["--loss", "mse", "--ignore-index", "1"], 2, ["--ignore-index belongs to --loss cross-entropy"]),
    "class axis of bce": (["--loss", "bce", "--class-axis", "1"], 2, ["--class-axis belongs to"]),
    "two losses": ([*CE, "--loss-output", "z"], 2, ["cannot be used with"]),
    "unknown loss": (["--loss", "hinge"], 2, ["hinge", "cross-entropy, soft-cross-entropy, mse, bce, l1"]),
    "lambda of zeta": ([*CE, "--lambda-g", "0.1"], 2, ["--lambda-g belongs to --method zeta"]),
    "unknown layer": ([*CE, "--layers", "3"], 2, ["--layers '3' matches no layer", "1 fc0.weight, 2 fc1.weight"]),
    "momentum of one": ([*CE, "--optimizer", "momentum", "--momentum", "1"], 2, ["from 0 to below 1"]),
    "betas of one": ([*CE, "--optimizer", "adam", "--betas", "0.9", "1.0"], 2, ["from 0 to below 1"]),
    "update of no update": ([*CE, "--optimizer", "none", "--update-out", "u.onnx"], 2, ["--update-out"]),
    "update without loss": (["--update-out", "u.onnx"], 2, ["--loss"]),
    "evaluation without loss": (["--eval-out", "e.onnx"], 2, ["--loss"]),
    "negative decay": ([*CE, "--weight-decay=-1"], 2, ["--weight-decay"]),
    "negative number behind a space": ([*CE, "--weight-decay", "-1"], 2, ["--weight-decay", "a number of 0 or more"]),
    "negative damping": ([*CE, "--lambda", "-1"], 2, ["--lambda", "the damping is a number above 0, or inf"]),
    "norm of zero": ([*CE, "--clip-norm", "0"], 2, ["a number above 0"]),
    "nesterov without momentum": ([*CE, "--nesterov"], 2, ["--nesterov belongs to --optimizer momentum"]),
    "momentum of adam": ([*CE, "--optimizer", "adam", "--momentum", "0.5"], 2, ["--momentum belongs to"]),
    "betas of sgd": ([*CE, "--betas", "0.5", "0.5"], 2, ["--betas belongs to --optimizer adam and adamw"]),
    "epsilon of sgd": ([*CE, "--epsilon", "1e-3"], 2, ["--epsilon belongs to --optimizer adam and adamw"]),
    "decay of no update": ([*CE, "--optimizer", "none", "--weight-decay", "1"], 2, ["--weight-decay belongs to"]),
    "norm of no update": ([*CE, "--optimizer", "none", "--clip-norm", "1"], 2, ["--clip-norm belongs to"]),
    "no loss": ([], 1, ["is a forward model", "--loss makes a training graph of it"]),
    "freeze without loss": (["--freeze", "*"], 2, ["--loss"]),
    "optimizer without loss": (["--optimizer", "adam"], 2, ["--loss"]),
    "weights without loss": (["--example-weights"], 2, ["--loss"]),
    "one file for two graphs": ([*CE, "--eval-out", "a.onnx", "--update-out", "a.onnx"], 2, ["are different files"]),
    "two ways to say one file": ([*CE, "--eval-out", "a.onnx", "--update-out", "./a.onnx"], 2, ["are different files"]),
    "expected layers": ([*CE, "--expect", "3"], 3, ["2 layers are to be rewritten, --expect says 3"]),
}


@pytest.mark.parametrize("name", OF_A_DENSE_NETWORK)
def test_dense_network(name, tmp_path):
    arguments, expected, messages = OF_A_DENSE_NETWORK[name]
    status, said = refusal(dense().model(), tmp_path, *arguments)
    assert status == expected
    for message in messages:
        assert message in said
    assert "isaac-onnx" not in said, "that is no program"


def test_several_outputs(tmp_path):
    net = dense(("fc0.h", ["N", 8], TensorProto.FLOAT))
    status, said = refusal(net.model(), tmp_path, *CE)
    assert status == 2 and "which output is the prediction (--prediction)? There are: z, fc0.h" in said


@pytest.mark.parametrize("arguments", [[*CE, "--prediction", "class"], ["--loss-output", "class"]])
def test_integer_output(arguments, tmp_path):
    net = dense(("class", ["N"], TensorProto.INT64))
    net.op("ArgMax", "z", into="class", axis=1, keepdims=0)
    status, said = refusal(net.model(), tmp_path, *arguments)
    assert status == 1 and "the output 'class' does not hold floating-point numbers" in said


@pytest.mark.parametrize("axes, message", [(1, "has 1 axes"), (4, "--class-axis says along which of them")])
def test_axes_of_a_cross_entropy(axes, message, tmp_path):
    net = Net(opset=17)
    shape = [2, 3, 4, 5][:axes]
    net.data("x", shape)
    net.weight("w", *shape)
    net.op("Add", "x", "w", into="z")
    net.output("z", shape)
    status, said = refusal(net.model(), tmp_path, *CE)
    assert status == 1 and f"{axes} axes" in said and message in said


def test_no_parameters(tmp_path):
    net = Net(opset=17)
    net.data("x", [5, 6])
    net.op("Relu", "x", into="z")
    net.output("z", [5, 6])
    status, said = refusal(net.model(), tmp_path, *CE)
    assert status == 1 and "depends on no floating-point initializer" in said


@pytest.mark.parametrize("path", ["onnx/spiral_step.onnx", "tests/fixtures/mlp_gemm_ts17/training_model.onnx"])
def test_training_graph(path, tmp_path):
    status, said = refusal(ROOT / path, tmp_path, *CE)
    assert status == 2 and "--loss makes a training graph of a forward model" in said and "has a backward pass" in said


def test_own_output_is_no_forward_model(tmp_path):
    source, target = tmp_path / "forward.onnx", tmp_path / "step.onnx"
    onnx.save(dense().model(), source)
    assert call(source, "-o", target, *CE).returncode == 0
    status, said = refusal(target, tmp_path, *CE)
    assert status == 2 and "has a backward pass" in said
    # Without --loss, its products are rewritten as those of any training graph, once.
    done = call(target, "-o", tmp_path / "again.onnx", "--lambda", 3)
    assert done.returncode == 0 and "0 of 0 layers rewritten, 2 products were before:" in done.stdout
    assert call(source, "-o", target, *CE, "--method", "gradient").returncode == 0
    done = call(target, "-o", tmp_path / "again.onnx", "--expect", 2)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("function, loss", [("Softmax", "cross-entropy"), ("Softmax", "soft-cross-entropy"), ("Sigmoid", "bce"), ("Softmax", "mse"), ("Sigmoid", "l1")])
def test_a_function_that_the_loss_applies_again_is_told(function, loss, tmp_path):
    """It may be meant: the graph is made."""
    net = dense()
    net.outputs.clear()
    net.output(net.op(function, "z", into="y"), ["N", 4])
    onnx.save(net.model(), tmp_path / "forward.onnx")
    done = call(tmp_path / "forward.onnx", "-o", tmp_path / "train.onnx", "--loss", loss)
    assert done.returncode == 0
    warning = f"isaac-rewrite: warning: 'y' comes out of {function}, and this loss applies {function} to it\n"
    assert done.stderr == ("" if loss in ("mse", "l1") else warning)


@pytest.mark.parametrize("option", ["-o", "--eval-out", "--update-out"])
@pytest.mark.parametrize("way", ["itself", "a detour", "a link"])
def test_the_forward_model_is_not_overwritten(option, way, tmp_path):
    source = tmp_path / "forward.onnx"
    onnx.save(dense().model(), source)
    before = source.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.onnx").symlink_to(source)
    target = {"itself": source, "a detour": tmp_path / "folder" / ".." / "forward.onnx", "a link": tmp_path / "link.onnx"}[way]
    other = [] if option == "-o" else ["-o", tmp_path / "train.onnx"]
    done = call(source, option, target, *other, *CE)
    assert done.returncode == 2 and "the forward model stays as it is" in done.stderr
    assert source.read_bytes() == before and not (tmp_path / "train.onnx").exists()
    # A training graph may be rewritten where it is.
    assert call(source, "-o", tmp_path / "train.onnx", *CE, "--method", "gradient").returncode == 0
    assert call(tmp_path / "train.onnx", "-o", tmp_path / "train.onnx", "--expect", 2).returncode == 0


def test_zeta_of_a_training_graph(tmp_path):
    status, said = refusal(ROOT / "onnx/spiral_step.onnx", tmp_path, "--method", "zeta")
    assert status == 2 and "take a forward model and a --loss" in said
    assert "  " not in said.split("\n")[0], "a message is one line of text"


def test_opset_that_is_too_old(tmp_path):
    status, said = refusal(network(random_layers([6, 8, 4]), opset=5).model(), tmp_path, *CE)
    assert status == 1 and "models of opset 6 or later can be trained, and this one imports 5" in said


def test_all_operators_without_a_gradient_are_listed(tmp_path):
    """Each with its name, and the parameters behind it; those that no parameter is behind are no obstacle."""
    net = Net(opset=17)
    net.data("x", [3, 4, 4])
    net.op("Det", "x", into="determinants")
    for name in "uvw":
        net.weight(name, 4, 4)
    net.op("MatMul", "x", "u", into="xu")
    net.op("Inverse", "xu", into="inverse", domain="com.microsoft")
    net.op("Det", "inverse", into="first")
    net.op("MatMul", "xu", "v", into="xv")
    net.op("Inverse", "xv", into="second", domain="com.microsoft")
    net.op("MatMul", "second", "w", into="xw")
    net.op("ReduceSum", "xw", into="third", keepdims=0)
    net.op("Sum", "determinants", "first", "third", into="z")
    net.output("z", [3])
    model = net.model()
    # No rule says what shape these have, which those behind them have to know.
    for name in ("inverse", "second"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4, 4]))
    status, said = refusal(model, tmp_path, "--loss", "mse")
    assert status == 1
    lines = said.strip().split("\n")
    assert lines[0].endswith("2 operators cannot be differentiated:")
    assert lines[1:] == [
        "  com.microsoft::Inverse 'Inverse:inverse': there is no gradient rule for this operator (on the way to u)",
        "  com.microsoft::Inverse 'Inverse:second': there is no gradient rule for this operator (on the way to u, v)",
    ]
    # Where only what comes after is trained, nothing has to be differentiated that cannot be.
    source, target = tmp_path / "forward.onnx", tmp_path / "train.onnx"
    done = call(source, "-o", target, "--loss", "mse", "--param", "w")
    assert done.returncode == 0, done.stderr


def test_dropout_whose_ratio_is_fed(tmp_path):
    net = Net(opset=17)
    net.data("ratio", [])
    net.weight("w", 3, 4)
    net.op("Dropout", "w", "ratio", into="z")
    net.output("z", [3, 4])
    status, said = refusal(net.model(), tmp_path, "--loss", "mse")
    assert status == 1 and "Dropout 'Dropout:z': its ratio is not constant" in said
