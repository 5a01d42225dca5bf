"""A step of a training graph by isaac-rewrite, in the stock ONNX Runtime."""

import json
import os
import subprocess

import numpy as np
import onnx
import onnxruntime
from worker import DAMPING, LEARNING_RATE, arguments, serve

args = arguments()
forward, graph = args.folder / "forward.onnx", args.folder / f"{args.method}.onnx"
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
graph.unlink()
names = json.loads(session.get_modelmeta().custom_metadata_map["isaac.training"])
batch = np.load(args.folder / "batch.npz")
carried = {entry["input"]: entry["updated"] for entry in names["parameters"] + names["state"]}
start = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(forward).graph.initializer}
# Two sets of parameters: each step reads one and writes the other.
sets = [{name: onnxruntime.OrtValue.ortvalue_from_numpy(start[name].copy()) for name in carried} for _ in range(2)]
bindings = []
for now, then in (sets, sets[::-1]):
    binding = session.io_binding()
    binding.bind_cpu_input(names["data"][0], batch["x"])
    binding.bind_cpu_input(names["labels"][0], batch["labels"])
    binding.bind_cpu_input(names["scalars"]["lr"], np.array(LEARNING_RATE, np.float32))
    for name, updated in carried.items():
        binding.bind_ortvalue_input(name, now[name])
        binding.bind_ortvalue_output(updated, then[name])
    binding.bind_output(names["loss"], "cpu")
    bindings.append(binding)


def step():
    session.run_with_iobinding(bindings[0])
    bindings.reverse()


serve(step)
