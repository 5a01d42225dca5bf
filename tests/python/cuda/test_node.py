"""What a node does around its kernels: where it runs, what it refuses, and where its tensors are."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from isaac_gemm import error, message, run, session
from onnx import TensorProto

RNG = np.random.default_rng(17)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("trans_g", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_y", [0, 1])
def test_infinite_damping_is_the_plain_product(trans_g, trans_a, trans_y):
    g, a = normal(9, 5), normal(9, 7)
    node = session(("G", "A", "lambda_a"), transG=trans_g, transA=trans_a, transY=trans_y, alpha=-0.5)
    assert "CUDAExecutionProvider" in node.get_providers()
    got = run(node, g.T.copy() if trans_g else g, a.T.copy() if trans_a else a, lambda_a=np.inf)
    expected = -0.5 * g.T.astype(float) @ a
    assert error(got, expected.T if trans_y else expected) < 1e-6


def test_halves():
    g, a = normal(9, 5).astype(np.float16), normal(9, 7).astype(np.float16)
    got = run(session(element=TensorProto.FLOAT16, lambda_a=np.inf), g, a)
    assert got.dtype == np.float16 and error(got, g.T.astype(float) @ a.astype(float)) < 1e-3


def test_layers_one_by_one():
    g, a = normal(3, 4, 6, 5), normal(3, 4, 6, 7)
    node = session(lambda_a=np.inf, batched=2, ranks=(4, 4))
    assert error(run(node, g, a), np.swapaxes(g.astype(float), 2, 3) @ a) < 1e-6


def test_no_rows_no_features_no_layers():
    assert not run(session(lambda_a=1.0), normal(0, 5), normal(0, 7)).any()
    half = session(element=TensorProto.FLOAT16, lambda_a=1.0)
    assert not run(half, normal(0, 5).astype(np.float16), normal(0, 7).astype(np.float16)).any()
    assert run(session(lambda_a=1.0), normal(4, 0), normal(4, 7)).shape == (0, 7)
    assert run(session(lambda_a=1.0, batched=1, ranks=(3, 3)), normal(0, 4, 3), normal(0, 4, 2)).shape == (0, 3, 2)


def test_tensors_stay_on_the_device():
    g, a = normal(9, 5), normal(9, 7)
    node = session(("G", "A", "lambda_a"))
    binding = node.io_binding()
    for name, value in {"G": g, "A": a}.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    binding.bind_cpu_input("lambda_a", np.array(np.inf, np.float32))
    binding.bind_output("Y", "cuda", 0)
    node.run_with_iobinding(binding)
    output = binding.get_outputs()[0]
    assert output.device_name() == "cuda"
    assert error(output.numpy(), g.T.astype(float) @ a) < 1e-6


def test_threads_on_one_session():
    node = session(("G", "A", "lambda_a"))
    cases = [(normal(rows, 11), normal(rows, 13)) for rows in (3, 17, 40, 8)]

    def repeat(index):
        g, a = cases[index]
        expected = g.T.astype(float) @ a
        return all(error(run(node, g, a, lambda_a=np.inf), expected) < 1e-6 for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(repeat, range(4)))


@pytest.mark.parametrize("damping", [0.0, -1.0, np.nan])
def test_damping_must_be_positive(damping):
    node = session(("G", "A", "lambda_a"))
    text = message(lambda: run(node, normal(3, 2), normal(3, 2), lambda_a=damping))
    assert "dense1" in text and "lambda_a must be greater than zero" in text
    text = message(lambda: session(lambda_a=damping))
    assert "dense1" in text and "lambda_a must be greater than zero" in text


def test_shapes_must_fit():
    text = message(lambda: run(session(lambda_a=1.0), normal(3, 2), normal(4, 2)))
    assert "dense1" in text and "[3, 2]" in text and "[4, 2]" in text
