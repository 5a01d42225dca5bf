"""Fine-tunes an exported model in any ONNX Runtime, and writes the weights back into it.

    isaac-rewrite forward.onnx -o step.onnx --loss cross-entropy --lambda 1
    python examples/fine_tune.py step.onnx target/release/libisaac.so trained.npz
    isaac-rewrite forward.onnx --weights trained.npz -o tuned.onnx
"""

import json
import sys

import numpy as np
import onnxruntime

from train import spirals


def main(model, library, trained):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # Which input and output of the training graph is which.
    names = json.loads(session.get_modelmeta().custom_metadata_map["isaac.training"])
    carried = [*names["parameters"], *names["state"]]

    x, labels = spirals()
    feeds = {names["data"][0]: x, names["labels"][0]: labels, names["scalars"]["lr"]: np.array(1, np.float32)}
    outputs = [names["loss"], *(entry["updated"] for entry in carried)]
    for step in range(200):
        if "seed" in names["scalars"]:  # dropout, and labels that zeta and K-FAC draw: others in each step
            feeds[names["scalars"]["seed"]] = np.array(step, np.int64)
        loss, *updated = session.run(outputs, feeds)
        feeds |= {entry["input"]: value for entry, value in zip(carried, updated)}
        if step == 0:
            print(f"first loss {loss:.4f}")
    print(f"last loss {loss:.4f}")
    # What belongs into the forward model: not what only the optimizer carries.
    kept = [*names["parameters"], *(entry for entry in names["state"] if entry.get("statistic"))]
    np.savez(trained, **{entry["name"]: feeds[entry["input"]] for entry in kept})


if __name__ == "__main__":
    main(*sys.argv[1:])
