"""Makes pytorch_steps.npz: ten steps by PyTorch 2.4.1, for the tests to compare with.

    python3 -m venv pytorch-venv && pytorch-venv/bin/pip install torch==2.4.1 numpy==1.26.4
    pytorch-venv/bin/python onnx/pytorch_steps.py

A network of two linear layers with ReLU between is trained on one batch after the other, in float. OPTIMIZERS says, for each run, how
isaac-rewrite is asked for the same; the tests read it too. Those that are not in Python read what they start from under `start/`.

Another has a batch normalization, and is trained in double at falling rates, so that the whole of a difference is ours. PyTorch updates the
running variance with the unbiased variance of the batch and ONNX with the biased one: what that gives is recorded as `biased_var`.
"""

from pathlib import Path

import numpy as np

WIDTHS, BATCH, STEPS, RATE, CLIP = (6, 8, 4), 12, 10, 0.05, 0.2
FALLING_RATES = np.linspace(RATE, RATE / 5, STEPS).astype(np.float32)
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


def train(torch, net, update, rates, x, labels, clip=None):
    """One step on each batch at its rate; the losses."""
    losses = []
    for rate, batch, classes in zip(rates, x, labels):
        update.param_groups[0]["lr"] = float(rate)
        update.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(batch)), torch.from_numpy(classes))
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        update.step()
        losses.append(loss.item())
    return np.array(losses, np.float32)


def dense_runs(torch):
    kept = {}
    for name, (options, optimizer, arguments) in OPTIMIZERS.items():
        arrays, x, labels = start()
        net = torch.nn.Sequential(torch.nn.Linear(*WIDTHS[:2]), torch.nn.ReLU(), torch.nn.Linear(*WIDTHS[1:]))
        for parameter, value in zip(net.parameters(), arrays.values()):
            parameter.data = torch.from_numpy(value.copy())
        updates = getattr(torch.optim, optimizer)(net.parameters(), lr=RATE, **arguments)
        kept[f"{name}/losses"] = train(torch, net, updates, [RATE] * STEPS, x, labels, CLIP if "--clip-norm" in options else None)
        for parameter, key in zip(net.parameters(), arrays):
            kept[f"{name}/{key}"] = parameter.detach().numpy()
    return kept


def normalized_runs(torch):
    class Normalization(torch.nn.BatchNorm1d):
        """Keeps the running variance that ONNX defines, too."""

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.register_buffer("biased_var", self.running_var.clone())

        def forward(self, x):
            self.biased_var.mul_(1 - self.momentum).add_(self.momentum * x.detach().var(0, unbiased=False))
            return super().forward(x)

    def network():
        torch.manual_seed(0)
        inputs, hidden, classes = WIDTHS
        normalization = Normalization(hidden, momentum=0.3)
        torch.nn.init.uniform_(normalization.weight, 0.5, 1.5)
        torch.nn.init.normal_(normalization.bias)
        layers = [torch.nn.Linear(inputs, hidden), normalization, torch.nn.Tanh(), torch.nn.Linear(hidden, classes)]
        # In double, from numbers that are floats.
        return torch.nn.Sequential(*layers).double()

    def floats(net):
        tensors = net.state_dict().items()
        return {name: t.detach().numpy().astype(np.float32) for name, t in tensors if t.is_floating_point()}

    _, x, labels = start()
    kept = {f"normalized/start/{name}": value for name, value in floats(network()).items()}
    for name in ("sgd_decay", "adam"):
        net = network()
        _, optimizer, arguments = OPTIMIZERS[name]
        update = getattr(torch.optim, optimizer)(net.parameters(), lr=RATE, **arguments)
        kept[f"normalized/{name}/losses"] = train(torch, net, update, FALLING_RATES, x.astype(np.float64), labels)
        kept |= {f"normalized/{name}/{tensor}": value for tensor, value in floats(net).items()}
    return kept


def main():
    import torch

    arrays, x, labels = start()
    given = {f"start/{name}": value for name, value in {**arrays, "x": x, "labels": labels}.items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **given, **dense_runs(torch), **normalized_runs(torch))


if __name__ == "__main__":
    main()
