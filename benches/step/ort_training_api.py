"""A step with ONNX Runtime's training API: its own gradient graph and its own optimizer graph."""

from pathlib import Path

import onnx
from mlp import forward_model
from ort_training import CheckpointState, Module, Optimizer, SessionOptions, artifacts
from worker import LEARNING_RATE, arguments, batch, serve

args = arguments()
folder = Path(args.folder, "ort")
folder.mkdir()
model = forward_model(args.widths, seed=0)
losses = {"mse": artifacts.LossType.MSELoss, "cross-entropy": artifacts.LossType.CrossEntropyLoss}
artifacts.generate_artifacts(
    model,
    requires_grad=[initializer.name for initializer in model.graph.initializer],
    loss=losses[args.loss],
    optimizer=artifacts.OptimType.SGD,
    artifact_directory=str(folder),
)
options = SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = args.threads
state = CheckpointState.load_checkpoint(folder / "checkpoint")
module = Module(folder / "training_model.onnx", state, session_options=options)
optimizer = Optimizer(folder / "optimizer_model.onnx", module)
optimizer.set_learning_rate(LEARNING_RATE)
x, labels = batch(args.widths, args.loss)


def step():
    module(x, labels)
    optimizer.step()
    module.lazy_reset_grad()


serve(step)
