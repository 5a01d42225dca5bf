"""The node tests of the onnx package as tests of gradients: each model with a Gradient operator behind its operator.

    ISAAC_REWRITE=target/release/isaac-rewrite ISAAC_ONNX_DATA=... python tests/python/autodiff/suite.py > docs/gradients.md

The gradient is that of a weighted sum of the model's first floating-point output. It is compared with central differences in double
precision, which onnx's reference evaluator computes. At a kink, where the differences to the left and to the right disagree, there is no derivative
to compare with, and the element is left out.
"""

import collections
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# The backend test data of the onnx 1.16.2 package; later ones do not ship the node tests.
DATA = Path(os.environ["ISAAC_ONNX_DATA"])
# Operators whose definition has not changed since an old opset are tested in this one.
OPSET = 17
STEP = 1e-5
# Relative to the largest element of the gradient: float arithmetic in the runtime, and differences of step 1e-5.
TOLERANCE = 1e-4
# The same where the reference evaluator rounds to float on the way, which the differences magnify, or where the runtime
# does at the flat end of an activation.
TOLERANCE_OF_FLOAT_REFERENCE = 1e-3
FLOAT_REFERENCE = ("Cast", "Erf", "Gelu", "RNN")
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
    message = onnx.TensorProto()
    message.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(message)


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


def cases(operators):
    """One case for each model of these operators and each of its floating-point inputs, and one for all of them."""
    for folder in sorted((DATA / "node").iterdir()):
        model = onnx.load(folder / "model.onnx")
        graph = model.graph
        is_tensors = all(info.type.HasField("tensor_type") for info in graph.input)
        if len(graph.node) != 1 or graph.node[0].op_type not in operators or graph.node[0].domain or not is_tensors:
            continue
        model = modern(model)
        feeds = {}
        for i, info in enumerate(graph.input):
            value = tensor(folder / f"test_data_set_0/input_{i}.pb")
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
        if not feeds or not outputs or is_too_large or folder.name in NOT_COMPARABLE:
            continue
        sets = [list(feeds)] if len(feeds) == 1 else [list(feeds), *([name] for name in feeds)]
        for wanted in sets:
            yield Case(f"{folder.name}[{','.join(wanted)}]", graph.node[0].op_type, model, feeds, wanted, outputs[0])


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
        feeds = {n: v.astype(np.float64) for n, v in {**case.feeds, name: value}.items()}
        outputs = [info.name for info in case.model.graph.output]
        result = ReferenceEvaluator(case.model).run(None, feeds)[outputs.index(case.output.name)]
        return float((np.asarray(result, np.float64) * weights).sum())

    value = case.feeds[name].astype(np.float64)
    middle, slopes = weighted_sum(value), []
    for index in chosen:
        moved = np.zeros_like(value)
        moved[index] = STEP
        left, right = (middle - weighted_sum(value - moved)) / STEP, (weighted_sum(value + moved) - middle) / STEP
        is_kink = not np.isclose(left, right, rtol=1e-3, atol=1e-3 * (1 + abs(left)))
        slopes.append(np.nan if is_kink else (left + right) / 2)
    return np.array(slopes)


def measure(case):
    """The largest error of the case relative to its gradient's largest element; or a string: why it is refused."""
    generator = np.random.default_rng(0)
    outputs = ReferenceEvaluator(case.model).run([case.output.name], {n: v.astype(np.float64) for n, v in case.feeds.items()})
    weights = generator.standard_normal(np.shape(outputs[0]))
    with tempfile.TemporaryDirectory() as folder:
        path, refusal = lower(with_gradient(case, weights), folder)
        if refusal:
            return refusal
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    read = {info.name for info in session.get_inputs()}
    gradients = session.run(None, {name: value for name, value in case.feeds.items() if name in read})
    worst = 0.0
    for name, gradient in zip(case.wanted, gradients):
        assert gradient.shape == case.feeds[name].shape, f"{case.name}: {gradient.shape}"
        indices = list(np.ndindex(gradient.shape))
        chosen = [indices[i] for i in generator.permutation(len(indices))[:ELEMENTS]]
        expected = differences(case, weights, name, chosen)
        got = np.array([gradient[index] for index in chosen], np.float64)
        errors = np.abs(got - expected)[~np.isnan(expected)]
        scale = max(1e-3, np.abs(expected[~np.isnan(expected)]).max(initial=0.0))
        worst = max(worst, errors.max(initial=0.0) / scale)
    return worst


def table(operators):
    found = collections.defaultdict(list)
    for case in cases(operators):
        found[case.operator].append(measure(case))
    print("# Gradients of operators\n")
    print("Made by `tests/python/autodiff/suite.py`, whose head says what is compared.\n")
    print("| operator | cases | worst error | refused |\n|---|---|---|---|")
    for operator in sorted(operators):
        results = found[operator]
        errors = [result for result in results if not isinstance(result, str)]
        worst = f"{max(errors):.1e}" if errors else "-"
        print(f"| {operator} | {len(errors)} | {worst} | {len(results) - len(errors)} |")


if __name__ == "__main__":
    from operators import COVERED, TESTED_APART

    table(COVERED)
    print(f"\nTested with functions of their own, as the node suite has nothing for them: {', '.join(TESTED_APART)}.")
