"""Faults of the driver and of CUDA's libraries, which the stand-ins have on demand: errors of ONNX Runtime, and no more.

ISAAC_CUDA_STANDIN is the path of the stand-ins, which count the calls of each of their functions.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import isaac_gemm
import numpy as np
import onnxruntime
import pytest
from isaac_gemm import error, load, message, run, session, session_options
from onnx import TensorProto, helper

OPERATOR_TESTS = Path(__file__).parents[1] / "operator"


@pytest.fixture(scope="module")
def calls():
    """How often a function of the stand-ins was called."""
    count = ctypes.CDLL(os.environ["ISAAC_CUDA_STANDIN"]).isaac_standin_calls
    count.restype = ctypes.c_size_t
    return lambda name: count(name.encode())


def example():
    return np.arange(6, dtype=np.float32).reshape(3, 2), np.ones((3, 4), np.float32)


@pytest.mark.parametrize("function", ["cuMemHostAlloc", "cuMemHostGetDevicePointer_v2"])
def test_a_node_that_cannot_be_made(monkeypatch, function):
    monkeypatch.setenv("ISAAC_STANDIN_FAIL", function)
    text = message(lambda: session(lambda_a=1.0))
    assert "dense1" in text and "CUDA" in text and "CUDA_ERROR_LAUNCH_FAILED" in text
    monkeypatch.delenv("ISAAC_STANDIN_FAIL")
    session(lambda_a=1.0)


@pytest.mark.parametrize(
    "function, addend", [("cuCtxSetCurrent", None), ("cuMemsetD8Async", None), ("cuMemcpyDtoDAsync_v2", np.ones((2, 4)))]
)
def test_a_call_of_the_driver_that_fails(monkeypatch, function, addend):
    """A product of nothing, which the driver fills with zeros or with what is added."""
    given = {} if addend is None else {"C": addend}
    node = session(("G", "A", "", "", "", *given), lambda_a=1.0)
    g, a = (value[:0] for value in example())
    monkeypatch.setenv("ISAAC_STANDIN_FAIL", function)
    text = message(lambda: run(node, g, a, **given))
    assert "dense1" in text and "CUDA_ERROR_LAUNCH_FAILED" in text
    monkeypatch.delenv("ISAAC_STANDIN_FAIL")
    assert np.array_equal(run(node, g, a, **given), np.zeros((2, 4)) if addend is None else addend), "a later call is not affected"


def test_a_launch_that_fails(monkeypatch):
    node = session(lambda_a=1.0)
    g, a = example()
    expected = run(node, g, a)
    monkeypatch.setenv("ISAAC_STANDIN_FAIL", "cuLaunchKernel")
    text = message(lambda: run(node, g, a))
    assert "dense1" in text and "CUDA_ERROR_LAUNCH_FAILED" in text
    monkeypatch.delenv("ISAAC_STANDIN_FAIL")
    assert np.array_equal(run(node, g, a), expected), "a later call is not affected"


def test_a_product_that_fails(monkeypatch, calls):
    node = session(lambda_a=np.inf)
    g, a = example()
    functions = ["cublasSgemm_v2", "cublasGemmEx"]
    before = {function: calls(function) for function in functions}
    run(node, g, a)
    used = next(function for function in functions if calls(function) > before[function])
    monkeypatch.setenv("ISAAC_STANDIN_FAIL", used)
    assert "dense1" in message(lambda: run(node, g, a))
    monkeypatch.delenv("ISAAC_STANDIN_FAIL")
    assert error(run(node, g, a), g.T.astype(float) @ a) < 1e-6


def test_a_device_without_memory_for_scratch(monkeypatch):
    """The memory of the provider, which a layer with many rows needs more of."""
    monkeypatch.setattr(isaac_gemm, "PROVIDER", ("CUDAExecutionProvider", {"gpu_mem_limit": str(1 << 20)}))
    node = session(lambda_a=1.0, form="samples")
    g, a = np.ones((1000, 2), np.float32), np.ones((1000, 2), np.float32)
    text = message(lambda: run(node, g, a))
    assert "dense1" in text and "bytes of scratch memory" in text
    assert np.isfinite(run(node, g[:5], a[:5])).all(), "a later call is not affected"


LOADS = """
import sys
sys.path.append({operator!r})
from isaac_gemm import session
try:
    session(lambda_a=1.0)
except Exception as failure:
    print("refused:", failure)
"""


@pytest.mark.parametrize(
    "function",
    ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuModuleLoadData", "cuModuleGetFunction"],
)
def test_a_device_that_cannot_be_used(function):
    """In a process of its own: a device is opened once."""
    environment = {**os.environ, "ISAAC_STANDIN_FAIL": function}
    script = LOADS.format(operator=str(OPERATOR_TESTS))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dense1" in done.stdout and "CUDA_ERROR_LAUNCH_FAILED" in done.stdout


def test_the_device_is_not_waited_for(calls):
    """A run waits for its stream as often as a run of the plain product does."""
    waits = ["cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaFree", "cudaMemcpy"]
    waits += ["cuEventSynchronize", "cuCtxSynchronize"]
    g, a = example()

    def waited(node):
        binding = node.io_binding()
        for name, value in {"G": g, "A": a}.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        binding.bind_output("Y", "cuda", 0)
        node.run_with_iobinding(binding)
        before = [calls(name) for name in waits]
        node.run_with_iobinding(binding)
        return [calls(name) - count for name, count in zip(waits, before)]

    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", name]) for name in "GA"]
    output = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    plain = load(helper.make_graph([helper.make_node("Gemm", ["G", "A"], ["Y"], transA=1)], "layer", shapes, [output]))
    assert waited(session(lambda_a=1.0)) == waited(plain)


WITHOUT_DRIVER = """
import sys
sys.path.append({operator!r})
import numpy as np
from isaac_gemm import run, session
print(run(session(lambda_a=np.inf), np.ones((3, 2), "f"), np.ones((3, 4), "f")).sum())
assert "libcuda" not in open("/proc/self/maps").read()
"""


def test_a_machine_without_cuda():
    """The same library, on the CPU, where none of CUDA's libraries is loaded."""
    environment = {**os.environ, "ISAAC_PROVIDER": "CPUExecutionProvider"}
    del environment["LD_LIBRARY_PATH"]
    script = WITHOUT_DRIVER.format(operator=str(OPERATOR_TESTS))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 24
