"""What a rewrite costs, beside onnx.load + onnx.save: CPU seconds and private memory, on models far larger than the change.

    python tools/python/bench_rewrite.py target/release/isaac-rewrite [--runs 5] [--folder DIR]

Two training steps of a linear layer are made: one with 1.5 GB of weights inside the file, one with 8 GB outside (a sparse
file). Each run is a process of its own; the two sides take turns. CPU is user + system time; memory is the peak of the
process's anonymous pages, so pages of a file map do not count. Needs 5 GB of disk, and `onnx` and `numpy` for the other side.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
from onnx import TensorProto, helper

INLINE_BYTES = 1_500_000_000
EXTERNAL_BYTES = 8_000_000_000
FEATURES = 500
PYTHON_SIDE = "import onnx, sys; onnx.save(onnx.load(sys.argv[1], load_external_data=False), sys.argv[2])"


def training_step(frozen):
    """y = x W' + frozen[0], loss = mean y^2, with the gradient of W as an output."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["linear"], transB=1),
        helper.make_node("Gather", ["frozen", "zero"], ["offset"]),
        helper.make_node("Add", ["linear", "offset"], ["y"]),
        helper.make_node("Mul", ["y", "y"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["loss"], keepdims=0),
        helper.make_node("Mul", ["y", "scale"], ["dy"]),
        helper.make_node("Gemm", ["dy", "x"], ["dw"], transA=1),
    ]
    scalars = [helper.make_tensor("zero", TensorProto.INT64, [], [0]), helper.make_tensor("scale", TensorProto.FLOAT, [], [0.01])]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "step",
        [info("x", TensorProto.FLOAT, ["N", FEATURES]), info("w", TensorProto.FLOAT, [FEATURES, FEATURES])],
        [info("loss", TensorProto.FLOAT, []), info("dw", TensorProto.FLOAT, [FEATURES, FEATURES])],
        scalars + [frozen],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def frozen_tensor(size):
    return TensorProto(name="frozen", data_type=TensorProto.FLOAT, dims=[size // (4 * FEATURES), FEATURES])


def write_inline(path):
    tensor = frozen_tensor(INLINE_BYTES)
    tensor.raw_data = bytes(INLINE_BYTES)
    path.write_bytes(training_step(tensor).SerializeToString())


def write_external(path):
    data = path.with_suffix(".data")
    with data.open("wb") as file:
        file.truncate(EXTERNAL_BYTES)
    tensor = frozen_tensor(EXTERNAL_BYTES)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data.name), ("offset", "0"), ("length", str(EXTERNAL_BYTES))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(training_step(tensor).SerializeToString())


def anonymous_bytes(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def measure(command):
    """CPU seconds and peak of private memory of one process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        peak = max(peak, anonymous_bytes(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.001)
    if status != 0:
        sys.exit(f"failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rewrite", help="the isaac-rewrite program")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", help="where to make the models; 5 GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name, write in (("1.5 GB inline", write_inline), ("8 GB external", write_external)):
            model, output = Path(folder, "model.onnx"), Path(folder, "out.onnx")
            write(model)
            sides = {
                "isaac-rewrite": [arguments.rewrite, str(model), "-o", str(output), "--expect", "1"],
                "onnx.load + onnx.save": [sys.executable, "-c", PYTHON_SIDE, str(model), str(output)],
            }
            results = {side: [] for side in sides}
            for _ in range(arguments.runs):
                for side, command in sides.items():
                    results[side].append(measure(command))
            for side, runs in results.items():
                cpu, memory = (statistics.median(column) for column in zip(*runs))
                print(f"{name:14}  {side:22}  {cpu:6.2f} s CPU  {memory / 1e6:8.1f} MB private memory")


if __name__ == "__main__":
    main()
