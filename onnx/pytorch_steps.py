"""Makes pytorch_steps.npz: ten steps of each optimizer by PyTorch 2.4.1, for the tests to compare with.

    python3 -m venv pytorch-venv && pytorch-venv/bin/pip install torch==2.4.1 numpy==1.26.4
    pytorch-venv/bin/python onnx/pytorch_steps.py

A network of two linear layers with ReLU between is trained on one batch after the other, in float. OPTIMIZERS says, for each run, how
isaac-rewrite is asked for the same; the tests read it too.
"""

from pathlib import Path

import numpy as np

WIDTHS, BATCH, STEPS, RATE, CLIP = (6, 8, 4), 12, 10, 0.05, 0.2
# By name: the options of isaac-rewrite, the class in torch.optim, and its arguments.
OPTIMIZERS = {
    "sgd": ("--optimizer sgd", "SGD", {}),
    "sgd_decay": ("--optimizer sgd --weight-decay 0.1", "SGD", {"weight_decay": 0.1}),
    "sgd_clip": (f"--optimizer sgd --clip-norm {CLIP}", "SGD", {}),
    "momentum": ("--optimizer momentum", "SGD", {"momentum": 0.9}),
    "momentum_decay": ("--optimizer momentum --momentum 0.7 --weight-decay 0.05", "SGD", {"momentum": 0.7, "weight_decay": 0.05}),
    "nesterov": ("--optimizer momentum --nesterov", "SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": ("--optimizer adam", "Adam", {}),
    "adam_decay": (
        "--optimizer adam --betas 0.8 0.95 --epsilon 1e-3 --weight-decay 0.1",
        "Adam",
        {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ),
    "adamw": ("--optimizer adamw --weight-decay 0.1", "AdamW", {"weight_decay": 0.1}),
    "adamw_clip": (f"--optimizer adamw --weight-decay 0.01 --clip-norm {CLIP}", "AdamW", {"weight_decay": 0.01}),
}


def start():
    """The weights and biases before the first step, and the batches: by name, the same for everyone."""
    rng = np.random.default_rng(0)
    arrays = {}
    for i, (n, m) in enumerate(zip(WIDTHS, WIDTHS[1:])):
        arrays[f"fc{i}.weight"] = rng.normal(size=(m, n)).astype(np.float32) / 2
        arrays[f"fc{i}.bias"] = rng.normal(size=m).astype(np.float32) / 2
    x = rng.normal(size=(STEPS, BATCH, WIDTHS[0])).astype(np.float32)
    return arrays, x, rng.integers(0, WIDTHS[-1], (STEPS, BATCH))


def main():
    import torch

    kept = {}
    for name, (options, optimizer, arguments) in OPTIMIZERS.items():
        arrays, x, labels = start()
        net = torch.nn.Sequential(torch.nn.Linear(*WIDTHS[:2]), torch.nn.ReLU(), torch.nn.Linear(*WIDTHS[1:]))
        for parameter, value in zip(net.parameters(), arrays.values()):
            parameter.data = torch.from_numpy(value.copy())
        updates = getattr(torch.optim, optimizer)(net.parameters(), lr=RATE, **arguments)
        losses = []
        for step in range(STEPS):
            updates.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x[step])), torch.from_numpy(labels[step]))
            loss.backward()
            if "--clip-norm" in options:
                torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            updates.step()
            losses.append(loss.item())
        kept[f"{name}/losses"] = np.array(losses, np.float32)
        for parameter, key in zip(net.parameters(), arrays):
            kept[f"{name}/{key}"] = parameter.detach().numpy()
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **kept)


if __name__ == "__main__":
    main()
