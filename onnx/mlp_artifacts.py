"""Makes the training artifacts of a ReLU MLP with ONNX Runtime's own generator.

    python onnx/mlp_artifacts.py OUT [--widths 784 400 400 400 400 10] [--seed 0]

writes OUT/forward.onnx, and from it training_model.onnx, eval_model.onnx, optimizer_model.onnx (plain SGD) and
checkpoint. Needs the `training` environment (`cargo xtask setup`).
"""

import argparse
import sys
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "python"))
from mlp import WIDTHS, forward_model  # noqa: E402
from ort_training import artifacts  # noqa: E402

def write_artifacts(folder, widths=WIDTHS, seed=0):
    """Writes the forward model and the artifacts into `folder`; training and eval model also give the logits."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = forward_model(widths, seed)
    onnx.save(model, folder / "forward.onnx")
    artifacts.generate_artifacts(
        model,
        requires_grad=[initializer.name for initializer in model.graph.initializer],
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(folder),
        additional_output_names=["logits"],
    )


def main():
    parser = argparse.ArgumentParser(description="Makes the training artifacts of a ReLU MLP.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="units per layer, input first")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights")
    arguments = parser.parse_args()
    write_artifacts(arguments.out, arguments.widths, arguments.seed)


if __name__ == "__main__":
    main()
