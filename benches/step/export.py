"""Writes a network as forward.onnx and a batch for it as batch.npz, for the variants that PyTorch doesn't run."""

import sys
from pathlib import Path

import numpy as np
import torch
from networks import batch, network

# ONNX Runtime's generator fails on the LayerNormalization of opset 17.
OPSET = 15

name, folder = sys.argv[1], Path(sys.argv[2])
x, labels = batch(name)
torch.onnx.export(
    network(name).train(),
    (x,),
    str(folder / "forward.onnx"),
    input_names=["x"],
    output_names=["y"],
    opset_version=OPSET,
    training=torch.onnx.TrainingMode.TRAINING,
    do_constant_folding=False,
)
np.savez(folder / "batch.npz", x=x.numpy(), labels=labels.numpy())
