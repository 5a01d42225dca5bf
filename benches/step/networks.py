"""The networks whose steps are timed, in PyTorch: those of the paper's Table 2, a small CNN, ResNet-18, an encoder as in BERT.

`linear` is the class of their linear layers: PyTorch's, or the authors' with zeta*.
"""

import torch
from torch import nn

CLASSES = 10


def perceptron(*widths):
    def build(linear):
        layers = []
        for fan_in, fan_out in zip(widths, widths[1:]):
            layers += [linear(fan_in, fan_out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build


def small_cnn(linear):
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), linear(1600, 128), nn.ReLU(), linear(128, CLASSES)),
    )


class Residual(nn.Module):
    """A basic block of ResNet. Its batch normalizations have become part of the convolutions."""

    def __init__(self, width, out, stride):
        super().__init__()
        self.first = nn.Conv2d(width, out, 3, stride, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Identity() if width == out else nn.Conv2d(width, out, 1, stride)

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def resnet18(linear):
    """For images of 32 x 32: a stem of 3 x 3 without pooling."""
    layers, width = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()], 64
    for out in (64, 128, 256, 512):
        layers += [Residual(width, out, 1 if width == out else 2), Residual(out, out, 1)]
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(512, CLASSES))


class EncoderLayer(nn.Module):
    """Attention and two linear layers, each with a norm after the sum. Tokens are rows, as the authors' layer wants them."""

    HEADS = 4

    def __init__(self, width, linear):
        super().__init__()
        self.query, self.key, self.value, self.out = (linear(width, width) for _ in range(4))
        self.up, self.down = linear(width, 4 * width), linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, rows, batch, tokens):
        def heads(values):
            return values.view(batch, tokens, self.HEADS, -1).transpose(1, 2)

        query, key, value = (heads(layer(rows)) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5, dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(rows.shape)
        rows = self.norms[0](rows + self.out(mixed))
        return self.norms[1](rows + self.down(nn.functional.gelu(self.up(rows))))


class Encoder(nn.Module):
    WIDTH, WORDS, TOKENS = 256, 1000, 128

    def __init__(self, linear):
        super().__init__()
        self.words = nn.Embedding(self.WORDS, self.WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(self.TOKENS, self.WIDTH))
        self.layers = nn.ModuleList(EncoderLayer(self.WIDTH, linear) for _ in range(2))
        self.head = linear(self.WIDTH, CLASSES)

    def forward(self, words):
        batch, tokens = words.shape
        rows = (self.words(words) + self.positions).view(-1, self.WIDTH)
        for layer in self.layers:
            rows = layer(rows, batch, tokens)
        return self.head(rows.view(batch, tokens, -1).mean(1))


# By name: how it is built, and the shape of a batch of its inputs.
NETWORKS = {
    "5x100": (perceptron(784, 100, 100, 100, 100, CLASSES), (60, 784)),
    "5x400": (perceptron(784, 400, 400, 400, 400, CLASSES), (60, 784)),
    "5x1600": (perceptron(784, 1600, 1600, 1600, 1600, CLASSES), (60, 784)),
    "5x6400": (perceptron(784, 6400, 6400, 6400, 6400, CLASSES), (60, 784)),
    "auto-encoder": (perceptron(784, 1000, 500, 30, 500, 1000, 784), (60, 784)),
    "cnn": (small_cnn, (60, 1, 28, 28)),
    "resnet18": (resnet18, (32, 3, 32, 32)),
    "encoder": (Encoder, (8, Encoder.TOKENS)),
}


def network(name, linear=nn.Linear):
    """The network, from the same start each time."""
    torch.manual_seed(0)
    return NETWORKS[name][0](linear)


def batch(name):
    """Inputs, and their labels: classes, or the inputs themselves."""
    generator = torch.Generator().manual_seed(0)
    shape = NETWORKS[name][1]
    if name == "encoder":
        x = torch.randint(Encoder.WORDS, shape, generator=generator)
    else:
        x = torch.rand(shape, generator=generator)
    return x, x if name == "auto-encoder" else torch.randint(CLASSES, shape[:1], generator=generator)
