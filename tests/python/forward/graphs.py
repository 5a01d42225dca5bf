"""Making a training graph with isaac-rewrite, and driving it as its metadata say."""

import numpy as np
import onnx
import onnxruntime
from isaac_gemm import session_options
from tool import call, training_map


def make(forward, folder, *arguments):
    """The training graph of a forward model, which is written to `folder` first."""
    source, target = folder / "forward.onnx", folder / "train.onnx"
    onnx.save(forward, source)
    done = call(source, "-o", target, *arguments)
    assert done.returncode == 0, done.stderr
    return onnx.load(target)


class Training:
    """A training graph in a session. Values in `watched` are outputs too."""

    def __init__(self, model, watched=(), fuses=True):
        self.map = training_map(model)
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        known = {output.name for output in copy.graph.output}
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched if name not in known)
        options = session_options()
        if not fuses:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.session = onnxruntime.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.carried = {}

    def run(self, feeds):
        """All outputs by name, from what the steps so far carried on."""
        feeds = {name: np.asarray(value) for name, value in {**self.carried, **feeds}.items()}
        return dict(zip(self.outputs, self.session.run(self.outputs, feeds)))

    def step(self, feeds):
        """One step: its loss."""
        outputs = self.run(feeds)
        for entry in [*self.map["parameters"], *self.map["state"]]:
            self.carried[entry["input"]] = outputs[entry["updated"]]
        return outputs[self.map["loss"]]

    def gradients(self, feeds):
        """By parameter: its gradient, or what takes its place."""
        outputs = self.run(feeds)
        return {entry["name"]: outputs[entry["gradient"]] for entry in self.map["parameters"]}


def relative_error(got, expected):
    """The largest error, relative to the largest element of what is expected."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    return np.abs(got - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30)
