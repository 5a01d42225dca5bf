"""How long IsaacGemm takes compared with Gemm, in real sessions.

    ISAAC_LIBRARY=target/release/libisaac.so python benches/layer.py [--rounds N] [--damping X] [--relu] [--cpu-time] [--csv FILE]
        [--device cuda]

Needs numpy, onnx and an onnxruntime with `set_global_thread_pool_sizes`. Each row's two nodes run alternately in the same
process, so that whatever else the machine does meets both, and on the same threads: those of a session of its own would
spin for milliseconds after its run, on the cores that the other's need. Times are medians, with inputs and outputs bound
beforehand. `limit` is 1 + the fewest extra flops of any form over the flops of Gemm; `over` is ratio / limit.
"""

import argparse
import csv
import multiprocessing
import os
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

SHAPES = [  # rows, inputs, outputs
    (60, 100, 100),
    (32, 400, 400),
    (60, 400, 400),
    (60, 784, 400),
    (60, 1000, 500),
    (100, 400, 400),
    (128, 784, 784),
    (256, 400, 400),
    (400, 400, 400),
    (512, 512, 512),
    (60, 1600, 1600),
    (128, 1600, 1600),
    (1024, 400, 400),
    (1024, 384, 1536),
    (4096, 768, 768),
]


PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def session(node, inputs, device):
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in inputs.items()]
    output = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.isaac", 1)]
    model = helper.make_model(helper.make_graph([node], "layer", declared, [output]), opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(os.environ["ISAAC_LIBRARY"])
    options.use_per_session_threads = False
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[PROVIDERS[device]])


class Timed:
    def __init__(self, node, inputs, device):
        inputs = {name: inputs[name] for name in node.input}
        self.session = session(node, inputs, device)
        self.binding = self.session.io_binding()
        for name, x in inputs.items():
            self.binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(x, device, 0))
        self.binding.bind_output("Y", device)
        self.times = []

    def run(self, clock, keep):
        start = clock()
        self.session.run_with_iobinding(self.binding)
        if keep:
            self.times.append(clock() - start)

    def median(self):
        return float(np.median(self.times))


def limit(rows, inputs, outputs):
    samples = rows * rows * inputs + rows**3 / 3 + 2 * rows * rows * min(inputs, outputs)
    features = inputs * inputs * rows + inputs**3 / 3 + 2 * inputs * inputs * min(rows, outputs)
    return 1 + min(samples, features) / (2 * rows * inputs * outputs)


def measure(shape, rounds, damping, relu, clock, device):
    rng = np.random.default_rng(0)
    rows, inputs, outputs = shape
    tensors = {"G": rng.normal(size=(rows, outputs)), "A": rng.normal(size=(rows, inputs))}
    if relu:
        tensors["A"] = np.maximum(tensors["A"], 0)
    tensors = {name: x.astype(np.float32) for name, x in tensors.items()}
    plain = Timed(helper.make_node("Gemm", ["G", "A"], ["Y"], transA=1), tensors, device)
    node = helper.make_node("IsaacGemm", ["G", "A"], ["Y"], domain="ai.isaac", lambda_a=damping)
    isaac = Timed(node, tensors, device)
    rounds = max(20, min(rounds, int(rounds * 2e7 / (rows * inputs * outputs))))
    for keep in [False] * 5 + [True] * rounds:
        plain.run(clock, keep)
        isaac.run(clock, keep)
    return plain.median(), isaac.median()


def process_with(threads):
    """A process whose sessions all share so many threads for what is inside a node."""
    initializer = onnxruntime.set_global_thread_pool_sizes
    return multiprocessing.get_context("spawn").Pool(1, initializer, initargs=(threads, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--damping", type=float, default=1.0)
    parser.add_argument("--relu", action="store_true", help="inputs as after a ReLU instead of normal ones")
    parser.add_argument("--csv")
    parser.add_argument("--device", choices=PROVIDERS, default="cpu")
    help_cpu = "measure what the calling thread computes, on one thread only: for a machine that does other things too"
    parser.add_argument("--cpu-time", action="store_true", help=help_cpu)
    arguments = parser.parse_args()
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    header = ["threads", "rows", "inputs", "outputs", "gemm_us", "isaac_us", "ratio", "limit", "over"]
    print(("{:>9}" * len(header)).format(*header))
    results = []
    for threads in (1,) if arguments.cpu_time or arguments.device == "cuda" else (1, 2):
        with process_with(threads) as process:
            for shape in SHAPES:
                given = arguments.rounds, arguments.damping, arguments.relu, clock, arguments.device
                plain, isaac = process.apply(measure, (shape, *given))
                ratio, least = isaac / plain, limit(*shape)
                results.append([threads, *shape, plain * 1e6, isaac * 1e6, ratio, least, ratio / least])
                print(("{:9}" * 4 + "{:9.1f}" * 2 + "{:9.3f}" * 3).format(*results[-1]), flush=True)
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            csv.writer(file).writerows([header, *results])


if __name__ == "__main__":
    main()
