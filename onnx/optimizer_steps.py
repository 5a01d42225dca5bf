"""Makes optimizer_steps.npz: ten steps of PyTorch's optimizers on a small network, for the tests to compare with. PyTorch 2.4.1.

    python3 -m venv torch-venv && torch-venv/bin/pip install torch==2.4.1 numpy==1.26.4
    torch-venv/bin/python onnx/optimizer_steps.py

All runs start from the same parameters and see the same batches and learning rates, which are in the file too. PyTorch computes
in double precision here, so that the whole of a difference is ours. One network has a batch normalization. PyTorch updates
its running variance with the unbiased variance of the batch and ONNX with the biased one: what that gives is recorded as `biased_var`.
"""

from pathlib import Path

import numpy as np
import torch

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 10, 7, 6, 8, 3
RATE = 0.05
# By name: PyTorch's optimizer, its options and the largest norm of the gradients.
RUNS = {
    "sgd": (torch.optim.SGD, {}, None),
    "sgd_decay": (torch.optim.SGD, {"weight_decay": 0.1}, None),
    "sgd_clipped": (torch.optim.SGD, {}, 0.2),
    "momentum": (torch.optim.SGD, {"momentum": 0.8}, None),
    "momentum_decay_clipped": (torch.optim.SGD, {"momentum": 0.8, "weight_decay": 0.1}, 0.2),
    "nesterov": (torch.optim.SGD, {"momentum": 0.8, "nesterov": True}, None),
    "nesterov_decay": (torch.optim.SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}, None),
    "adam": (torch.optim.Adam, {}, None),
    "adam_decay": (torch.optim.Adam, {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}, None),
    "adam_clipped": (torch.optim.Adam, {"eps": 1e-2}, 0.2),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.0}, None),
    "adamw_decay": (torch.optim.AdamW, {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}, None),
    "adamw_decay_clipped": (torch.optim.AdamW, {"weight_decay": 0.1}, 0.2),
}


class Normalization(torch.nn.BatchNorm1d):
    """Keeps the running variance that ONNX defines, too."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("biased_var", self.running_var.clone())

    def forward(self, x):
        self.biased_var.mul_(1 - self.momentum).add_(self.momentum * x.detach().var(0, unbiased=False))
        return super().forward(x)


def network(normalizes):
    torch.manual_seed(0)
    middle = [Normalization(HIDDEN, momentum=0.3)] if normalizes else []
    layers = [torch.nn.Linear(INPUTS, HIDDEN), *middle, torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CLASSES)]
    net = torch.nn.Sequential(*layers)
    if normalizes:
        torch.nn.init.uniform_(middle[0].weight, 0.5, 1.5)
        torch.nn.init.normal_(middle[0].bias)
    return net.double()


def floats(net):
    """All tensors of a network, as they are stored."""
    return {name: t.detach().numpy().astype(np.float32) for name, t in net.state_dict().items() if t.is_floating_point()}


def train(net, data, optimizer, options, limit):
    """The loss of each step, and what the network is after them."""
    optimizer = optimizer(net.parameters(), lr=RATE, **options)
    losses = []
    for x, labels, rate in zip(*data):
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x).double()), torch.from_numpy(labels))
        loss.backward()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), limit)
        optimizer.step()
        losses.append(loss.item())
    return {"loss": np.float32(losses), **floats(net)}


def main():
    random = np.random.default_rng(0)
    x = random.standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32)
    labels = random.integers(CLASSES, size=(STEPS, BATCH))
    rates = np.linspace(RATE, RATE / 5, STEPS).astype(np.float32)
    kept = {"x": x, "labels": labels, "rates": rates}
    for kind in ("dense", "normalized"):
        kept |= {f"{kind}/start/{name}": value for name, value in floats(network(kind == "normalized")).items()}
    runs = [("dense", name) for name in RUNS] + [("normalized", name) for name in ("sgd_decay", "adam")]
    for kind, name in runs:
        net = network(kind == "normalized")
        # From the numbers as they are stored.
        net.load_state_dict({n: torch.from_numpy(v).double() for n, v in floats(net).items()}, strict=False)
        kept |= {f"{kind}/{name}/{n}": value for n, value in train(net, (x, labels, rates), *RUNS[name]).items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **kept)


if __name__ == "__main__":
    main()
