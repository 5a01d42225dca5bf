"""A step with ONNX Runtime's training API: its own gradient graph and its own optimizer graph."""

import numpy as np
import onnx
from ort_training import CheckpointState, Module, Optimizer, SessionOptions, artifacts
from worker import LEARNING_RATE, arguments, serve

args = arguments()
folder = args.folder / "ort"
folder.mkdir()
model = onnx.load(args.folder / "forward.onnx")
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
batch = np.load(args.folder / "batch.npz")
x, labels = batch["x"], batch["labels"]


def step():
    module(x, labels)
    optimizer.step()
    module.lazy_reset_grad()


serve(step)
