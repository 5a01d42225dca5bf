"""Trains rewritten artifacts with ONNX Runtime's training API (onnxruntime-training-cpu 1.19.2).

    python onnx/mlp_artifacts.py artifacts --widths 2 48 48 2
    isaac-rewrite artifacts/training_model.onnx -o artifacts/isaac.onnx --lambda 1
    PYTHONPATH=tools/python python examples/train_api.py artifacts target/release/libisaac.so
"""

import sys

# The classes of onnxruntime.training.api. With PyTorch installed, import them from there.
from ort_training import CheckpointState, Module, Optimizer, SessionOptions

from train import spirals


def main(artifacts, library):
    options = SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(library)
    state = CheckpointState.load_checkpoint(f"{artifacts}/checkpoint")
    module = Module(f"{artifacts}/isaac.onnx", state, session_options=options)
    optimizer = Optimizer(f"{artifacts}/optimizer_model.onnx", module)
    optimizer.set_learning_rate(1.0)

    x, labels = spirals()
    for step in range(200):
        loss, _logits = module(x, labels)
        optimizer.step()
        module.lazy_reset_grad()
        if step == 0:
            print(f"first loss {loss:.4f}")
    print(f"last loss {loss:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
