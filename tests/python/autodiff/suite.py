"""The node tests of the onnx package as tests of gradients: each model with a Gradient operator behind its operator.

    ISAAC_REWRITE=target/release/isaac-rewrite ISAAC_ONNX_DATA=... python tests/python/autodiff/suite.py > docs/gradients.md

The gradient is that of a weighted sum of the model's first floating-point output. It is compared with central differences in double
precision, which onnx's reference evaluator computes: as the runtime computes it in float, and in double. At a kink, where the differences to the left and
to the right disagree, there is no derivative to compare with, and the element is left out.
"""

import collections
import os
import subprocess
import tempfile
from pathlib import Path

import doubles
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

# The backend test data of the onnx 1.16.2 package. Later ones do not ship the node tests as files, but make them.
DATA = Path(os.environ["ISAAC_ONNX_DATA"])
# Operators whose definition has not changed since an old opset are tested in this one.
OPSET = 17
STEP = 1e-6
# Of what is the same in another type: the type's rounding counts less in a large step.
STEP_OF_LINEAR = 0.125
# Relative to the largest element of the gradient. What the runtime computes in float:
TOLERANCE = 1e-5
# At the flat end of an activation, where 1 - y² has lost most digits of y.
TOLERANCES = {"GRU": 1e-4, "LSTM": 1e-4, "RNN": 2e-3}
# What the same graph of doubles gives: what is left are the differences' own errors, and constants that files hold as floats.
TOLERANCE_IN_DOUBLE = 2e-6
ELEMENTS = 30
# The reference evaluator, which is written in Python, takes minutes for larger tensors.
LARGEST = 20_000
NOT_COMPARABLE = {
    # ONNX Runtime's shape inference gives another size than its own kernel and the operator's definition.
    "test_maxpool_2d_ceil_output_size_reduce_by_one",
    # ONNX Runtime takes other places than the reference evaluator, so that the gradient is that of another function;
    # test_spatial.py compares with differences of what the runtime computes.
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
    # Both draw, with generators of their own.
    "test_training_dropout_default_mask",
    "test_training_dropout_mask",
}
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)

Case = collections.namedtuple("Case", "name operator model feeds wanted output")


def tensor(path):
    return read(onnx.TensorProto.FromString(path.read_bytes()))


def read(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def modern(model):
    """The same model in OPSET, where the operator is still the same; as it is elsewhere."""
    imported = next(entry for entry in model.opset_import if entry.domain == "")
    operator = model.graph.node[0].op_type
    if imported.version < OPSET:
        old, new = (onnx.defs.get_schema(operator, version).since_version for version in (imported.version, OPSET))
        if old == new:
            imported.version = OPSET
            model.ir_version = max(model.ir_version, 8)
    return model


def node_tests(operators):
    """Name, model and inputs of each node test of one of these operators: those of the data, and those that only the newest onnx has."""

    def is_wanted(graph):
        is_tensors = all(info.type.HasField("tensor_type") for info in graph.input)
        return len(graph.node) == 1 and graph.node[0].op_type in operators and not graph.node[0].domain and is_tensors

    folders = sorted((DATA / "node").iterdir())
    for folder in folders:
        model = onnx.load(folder / "model.onnx")
        if is_wanted(model.graph):
            paths = [folder / f"test_data_set_0/input_{i}.pb" for i in range(len(model.graph.input))]
            yield folder.name, model, [tensor(path) for path in paths]
    known = {folder.name for folder in folders}
    with np.errstate(all="ignore"):
        newest = collect_testcases(None)
    for test in newest:
        if test.name not in known and is_wanted(test.model.graph):
            yield test.name, test.model, [read(value) for value in test.data_sets[0][0]]


def cases(operators):
    """One case for each model of these operators and each of its floating-point inputs, and one for all of them."""
    for name, model, values in node_tests(operators):
        model = modern(model)
        graph, feeds = model.graph, {}
        for value, info in zip(values, graph.input):
            if info.type.tensor_type.elem_type in FLOATS:
                feeds[info.name] = value
            else:
                # Axes, indices and sizes are constants in exported models.
                graph.initializer.append(numpy_helper.from_array(value, info.name))
        for info in [info for info in graph.input if info.name not in feeds]:
            graph.input.remove(info)
        outputs = [info for info in graph.output if info.type.tensor_type.elem_type in FLOATS]
        feeds = {name: value for name, value in feeds.items() if value.size}
        is_too_large = any(value.size > LARGEST for value in feeds.values())
        if not feeds or not outputs or is_too_large or name in NOT_COMPARABLE:
            continue
        sets = [list(feeds)] if len(feeds) == 1 else [list(feeds), *([name] for name in feeds)]
        for wanted in sets:
            yield Case(f"{name}[{','.join(wanted)}]", graph.node[0].op_type, model, feeds, wanted, outputs[0])


def with_gradient(case, weights):
    """The case's model with a weighted sum of its output, and a Gradient of that."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph, element = model.graph, case.output.type.tensor_type.elem_type
    graph.initializer.append(numpy_helper.from_array(weights.astype(helper.tensor_dtype_to_np_dtype(element)), "suite/weights"))
    graph.node.append(helper.make_node("Mul", [case.output.name, "suite/weights"], ["suite/weighted"]))
    graph.node.append(helper.make_node("ReduceSum", ["suite/weighted"], ["suite/sum"], keepdims=0))
    names = [f"gradient of {name}" for name in case.wanted]
    domain = "ai.onnx.preview.training"
    graph.node.append(helper.make_node("Gradient", case.wanted, names, domain=domain, xs=case.wanted, y="suite/sum"))
    types = {info.name: info.type.tensor_type.elem_type for info in graph.input}
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(f"gradient of {name}", types[name], None) for name in case.wanted)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def lower(model, folder):
    """Runs isaac-rewrite; returns the written model's path, or what it said."""
    before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
    onnx.save(model, before)
    command = [os.environ["ISAAC_REWRITE"], str(before), "-o", str(after), "--method", "gradient"]
    done = subprocess.run(command, capture_output=True, text=True)
    return (after, None) if done.returncode == 0 else (None, done.stderr.strip())


def differences(case, weights, name, chosen):
    """Central differences at the chosen elements; NaN at kinks."""

    def weighted_sum(value):
        result = doubles.run(case.model, [case.output.name], {**case.feeds, name: value})[0]
        return float((np.asarray(result, np.float64) * weights).sum())

    step = STEP_OF_LINEAR if case.operator in ("Cast", "CastLike") else STEP
    value = case.feeds[name].astype(np.float64)
    middle, slopes = weighted_sum(value), []
    for index in chosen:
        moved = np.zeros_like(value)
        moved[index] = step
        left, right = (middle - weighted_sum(value - moved)) / step, (weighted_sum(value + moved) - middle) / step
        is_kink = not np.isclose(left, right, rtol=1e-3, atol=1e-3 * (1 + abs(left)))
        slopes.append(np.nan if is_kink else (left + right) / 2)
    return np.array(slopes)


def in_runtime(path, feeds):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    read = {info.name for info in session.get_inputs()}
    return session.run(None, {name: value for name, value in feeds.items() if name in read})


def exact(path, feeds):
    """What a graph of doubles gives: in the runtime, where that has its operators for doubles."""
    feeds = doubles.widened(feeds)
    try:
        return in_runtime(path, feeds)
    except (InvalidGraph, NotImplemented):
        return doubles.run(str(path), None, feeds)


def measure(case):
    """The largest errors of the case, relative to its gradient's largest element: as ONNX Runtime computes it, and as the reference evaluator does in
    double. Or a string: why it is refused."""
    generator = np.random.default_rng(0)
    outputs = doubles.run(case.model, [case.output.name], case.feeds)
    weights = generator.standard_normal(np.shape(outputs[0])).astype(np.float32).astype(np.float64)
    differentiated = with_gradient(case, weights)
    with tempfile.TemporaryDirectory() as folder:
        path, refusal = lower(differentiated, folder)
        if refusal:
            return refusal
        in_float = in_runtime(path, case.feeds)
        path, refusal = lower(doubles.in_double(differentiated), folder)
        assert refusal is None, refusal
        in_double = exact(path, case.feeds)
    worst = np.zeros(2)
    for name, *gradients in zip(case.wanted, in_float, in_double):
        indices = list(np.ndindex(case.feeds[name].shape))
        chosen = [indices[i] for i in generator.permutation(len(indices))[:ELEMENTS]]
        expected = differences(case, weights, name, chosen)
        is_smooth = ~np.isnan(expected)
        scale = max(1e-3, np.abs(expected[is_smooth]).max(initial=0.0))
        for i, gradient in enumerate(gradients):
            assert gradient.shape == case.feeds[name].shape, f"{case.name}: {gradient.shape}"
            got = np.array([gradient[index] for index in chosen], np.float64)
            worst[i] = max(worst[i], np.abs(got - expected)[is_smooth].max(initial=0.0) / scale)
    return worst


def table(operators):
    found = collections.defaultdict(list)
    for case in cases(operators):
        found[case.operator].append(measure(case))
    print("| operator | cases | in float | in double | refused |\n|---|---|---|---|---|")
    for operator in sorted(operators):
        results = found[operator]
        errors = [result for result in results if not isinstance(result, str)]
        worst = " | ".join(f"{error:.1e}" for error in np.max(errors, axis=0))
        print(f"| {operator} | {len(errors)} | {worst} | {len(results) - len(errors)} |")


HEAD = """# Gradients of operators

Made by `tests/python/autodiff/suite.py`, whose head says what is compared: the node tests of the onnx package with a Gradient operator behind them,
written out by `isaac-rewrite`, with central differences in double. Errors are relative to the largest element of the gradient.

- *In float*: as ONNX Runtime computes the model. What limits this is float arithmetic, and in recurrent networks the flat end of an activation: there
  1 - y² has lost most digits of y, as in any framework that keeps y.
- *In double*: the same graph with doubles in the place of floats, in ONNX Runtime where it has kernels for doubles, or else in onnx's reference
  evaluator. What limits this are the differences, with a step of 1e-6, and constants and attributes that files hold as floats.
- *Refused*: cases in which a gradient is asked for with respect to an input that ONNX calls not differentiable (the bounds of Clip, the scales of
  Resize, the class weights of a loss, …), and what `tests/python/autodiff/operators.py` lists.
"""


if __name__ == "__main__":
    from operators import COVERED, NOT_COVERED, TESTED_APART

    print(HEAD)
    table(COVERED)
    print(f"\nTested with functions of their own, as the node suite has nothing for them: {', '.join(TESTED_APART)}.\n")
    print("ONNX calls these differentiable as well, and they have no gradient here:\n")
    for operator, reason in NOT_COVERED.items():
        print(f"- {operator}: {reason}.")
