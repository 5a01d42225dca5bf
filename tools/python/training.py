"""Training with ONNX Runtime's training API: one run, its loss curve and its step times."""

import time
from pathlib import Path

import numpy as np

from ort_training import CheckpointState, Module, Optimizer, SessionOptions

BATCH = 60
EVAL_BATCH = 1000


class Run:
    """A network in training: artifacts and weights from a folder, plus what its steps have shown so far."""

    def __init__(self, artifacts, learning_rate, training_model=None, library=None):
        """`training_model` replaces the folder's own training graph; `library` holds the operators it needs."""
        artifacts = Path(artifacts)
        options = SessionOptions()
        options.log_severity_level = 3  # errors only: the generator's graphs draw shape warnings
        if library is not None:
            options.register_custom_ops_library(str(library))
        self.state = CheckpointState.load_checkpoint(artifacts / "checkpoint")
        self.module = Module(
            training_model or artifacts / "training_model.onnx",
            self.state,
            artifacts / "eval_model.onnx",
            session_options=options,
        )
        self.optimizer = Optimizer(artifacts / "optimizer_model.onnx", self.module)
        self.optimizer.set_learning_rate(learning_rate)
        self.losses = []
        self.seconds = []

    def step(self, images, labels):
        """One step on one batch: gradients, update, reset. Keeps the loss and the time it took, and returns the loss."""
        start = time.perf_counter()
        loss, _logits = self.module(images, labels)
        self.optimizer.step()
        self.module.lazy_reset_grad()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(loss))
        return self.losses[-1]

    def evaluate(self, split):
        """The mean loss and the accuracy over a whole split."""
        loss, correct = 0.0, 0
        self.module.eval()
        for start in range(0, len(split.labels), EVAL_BATCH):
            labels = split.labels[start : start + EVAL_BATCH]
            batch_loss, logits = self.module(split.images[start : start + EVAL_BATCH], labels)
            loss += float(batch_loss) * len(labels)
            correct += int(np.sum(np.argmax(logits, axis=1) == labels))
        self.module.train()
        return loss / len(split.labels), correct / len(split.labels)


def batches(split, epochs, seed, size=BATCH):
    """Yields shuffled (images, labels) batches; a seed gives the same order every time."""
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(len(split.labels))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield split.images[rows], split.labels[rows]
