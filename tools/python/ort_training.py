"""ONNX Runtime's training API, without PyTorch.

`onnxruntime.training` imports torch for its fused optimizers and its PyTorch front end, none of which the
training API or the artifact generator need. Here it sees a stub for as long as it loads.
"""

import sys
import types
from importlib.machinery import ModuleSpec

import onnxruntime  # before the stub is in place: its own probes for torch must find none

_stub = types.ModuleType("torch")
_stub.__spec__ = ModuleSpec("torch", loader=None)
_stub.optim = types.SimpleNamespace(Optimizer=object)

_real = sys.modules.get("torch")
sys.modules["torch"] = _stub
try:
    from onnxruntime.training import artifacts
    from onnxruntime.training.api import CheckpointState, Module, Optimizer
finally:
    if _real is None:
        del sys.modules["torch"]
    else:
        sys.modules["torch"] = _real

SessionOptions = onnxruntime.SessionOptions

__all__ = ["CheckpointState", "Module", "Optimizer", "SessionOptions", "artifacts"]
