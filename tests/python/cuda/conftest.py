"""The operator in ONNX Runtime's CUDA provider: on stand-ins for CUDA's libraries, or with tools/gpu-check on a real device.

ISAAC_LIBRARY is the path of libisaac.so, ISAAC_PROVIDER the provider that runs the nodes.
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests/python/operator"))


def pytest_configure():
    if not Path(os.environ.get("ISAAC_LIBRARY", "")).is_file():
        raise pytest.UsageError("ISAAC_LIBRARY has to be the path of a file")
    if os.environ.get("ISAAC_PROVIDER") != "CUDAExecutionProvider":
        raise pytest.UsageError("ISAAC_PROVIDER has to be CUDAExecutionProvider")


@pytest.fixture(autouse=True)
def nothing_falls_back_to_the_cpu(monkeypatch):
    """A node that the CUDA provider doesn't take is an error."""
    import isaac_gemm

    def options(threads=1, original=isaac_gemm.session_options):
        made = original(threads)
        made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return made

    monkeypatch.setattr(isaac_gemm, "session_options", options)
