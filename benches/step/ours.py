"""A step of a training graph by isaac-rewrite, in the stock ONNX Runtime."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from mlp import forward_model
from worker import DAMPING, LEARNING_RATE, arguments, batch, serve

args = arguments()
forward, graph = Path(args.folder, f"{args.method}-forward.onnx"), Path(args.folder, f"{args.method}.onnx")
onnx.save(forward_model(args.widths, seed=0), forward)
options = ["--loss", args.loss, "--method", args.method, "--lambda", str(DAMPING)]
if args.method == "zeta":
    options += ["--lambda-g", str(DAMPING)]
command = [os.environ["ISAAC_REWRITE"], str(forward), "-o", str(graph), *options]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

settings = onnxruntime.SessionOptions()
settings.log_severity_level = 3
settings.intra_op_num_threads = args.threads
settings.register_custom_ops_library(os.environ["ISAAC_LIBRARY"])
session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
forward.unlink()
graph.unlink()
names = json.loads(session.get_modelmeta().custom_metadata_map["isaac.training"])
x, labels = batch(args.widths, args.loss)
trained = {parameter["input"]: parameter["updated"] for parameter in names["parameters"]}
shapes = {info.name: info.shape for info in session.get_overridable_initializers()}
# Two sets of parameters: each step reads one and writes the other.
ours = onnxruntime.OrtValue.ortvalue_from_numpy
sets = [{name: ours(np.zeros(shapes[name], np.float32)) for name in trained} for _ in range(2)]
bindings = []
for now, then in (sets, sets[::-1]):
    binding = session.io_binding()
    binding.bind_cpu_input(names["data"][0], x)
    binding.bind_cpu_input(names["labels"][0], labels)
    binding.bind_cpu_input(names["scalars"]["lr"], np.array(LEARNING_RATE, np.float32))
    for name, updated in trained.items():
        binding.bind_ortvalue_input(name, now[name])
        binding.bind_ortvalue_output(updated, then[name])
    binding.bind_output(names["loss"], "cpu")
    bindings.append(binding)
start = {name: value.numpy() for name, value in sets[0].items()}
for tensor in forward_model(args.widths, seed=0).graph.initializer:
    start[tensor.name][...] = onnx.numpy_helper.to_array(tensor)


def step():
    session.run_with_iobinding(bindings[0])
    bindings.reverse()


serve(step)
