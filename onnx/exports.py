"""Small models as PyTorch's exporters write them with dynamic axes, and their gradients in double precision.

    python onnx/exports.py tests/exports

Needs torch 2.4.1, onnx 1.16.2 and, for torch.onnx.dynamo_export, onnxscript 0.1.0.dev20240831. Each NAME.onnx is exported in training mode
without constant folding, so that parameters keep their names; dropout is off. NAME.npz has inputs of other sizes, labels, and the
cross-entropy and its gradients as torch computes them in double.
"""

import copy
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 5


class Encoder(nn.Module):
    """Two of PyTorch's own encoder layers."""

    def __init__(self, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Attention(nn.Module):
    """Self-attention with a mask, the heads apart by view and permute, as in Hugging Face's BERT."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def apart(self, x):
        return x.view(x.size()[:-1] + (self.heads, x.size(-1) // self.heads)).permute(0, 2, 1, 3)

    def forward(self, x, mask):
        query, key, value = self.apart(self.query(x)), self.apart(self.key(x)), self.apart(self.value(x))
        scores = query @ key.transpose(-1, -2) / query.size(-1) ** 0.5 + mask
        context = (scores.softmax(-1) @ value).permute(0, 2, 1, 3).contiguous()
        return self.out(context.view(context.size()[:-2] + (x.size(-1),)))


class Bert(nn.Module):
    def __init__(self, width=8, words=20, places=16):
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(words, width), nn.Embedding(places, width), nn.Embedding(2, width)
        self.register_buffer("numbers", torch.arange(places).expand((1, -1)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention, self.up, self.down = Attention(width, 2), nn.Linear(width, 16), nn.Linear(16, width)
        self.pool, self.head = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, words, mask):
        count, length = words.size()
        kinds = torch.zeros((count, length), dtype=torch.long)
        x = self.norms[0](self.words(words) + self.kinds(kinds) + self.places(self.numbers[:, :length]))
        mask = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(torch.float32).min
        x = self.norms[1](self.attention(x, mask) + x)
        x = self.norms[2](self.down(F.gelu(self.up(x))) + x)
        return self.head(torch.tanh(self.pool(x[:, 0])))


class Gpt(nn.Module):
    """A learned table of positions, of which as many rows are taken as there are words, and causal attention."""

    def __init__(self, width=8):
        super().__init__()
        self.words, self.places = nn.Embedding(20, width), nn.Parameter(torch.randn(12, width) * 0.3)
        self.qkv, self.head = nn.Linear(width, 3 * width), nn.Linear(width, CLASSES)

    def forward(self, words):
        count, length = words.shape
        x = self.words(words) + self.places[:length]
        query, key, value = self.qkv(x).view(count, length, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.head(y.transpose(1, 2).reshape(count, length, -1)[:, -1])


class Vit(nn.Module):
    """Patches by a convolution, a class token in front, and PyTorch's own attention."""

    def __init__(self, width=8):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.randn(1, 1, width) * 0.3)
        self.places = nn.Parameter(torch.randn(1, 10, width) * 0.3)
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        y = self.norm(x)
        return self.head((x + self.attention(y, y, y, need_weights=False)[0])[:, 0])


class Windows(nn.Module):
    """Attention in shifted windows of an image that is padded to a multiple of their size, and patch merging, as in Swin."""

    def __init__(self, width=8, side=4):
        super().__init__()
        self.side = side
        self.patches, self.qkv = nn.Conv2d(3, width, 2, 2), nn.Linear(width, 3 * width)
        self.bias = nn.Parameter(torch.randn(2, side * side, side * side) * 0.3)
        self.merge, self.head = nn.Linear(4 * width, width), nn.Linear(width, CLASSES)

    def forward(self, x):
        side = self.side
        x = self.patches(x).permute(0, 2, 3, 1)
        _, rows, columns, width = x.shape
        x = torch.roll(F.pad(x, (0, 0, 0, -columns % side, 0, -rows % side)), (-1, -1), (1, 2))
        count, high, wide, _ = x.shape
        x = x.view(count, high // side, side, wide // side, side, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, width)
        query, key, value = self.qkv(x).reshape(-1, side * side, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = ((query @ key.transpose(-2, -1) + self.bias).softmax(-1) @ value).transpose(1, 2).reshape(-1, side * side, width)
        x = x.view(count, high // side, wide // side, side, side, width).permute(0, 1, 3, 2, 4, 5).reshape(count, high, wide, width)
        x = torch.roll(x, (1, 1), (1, 2))[:, :rows, :columns].contiguous()
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.merge(x).tanh().mean((1, 2)))


class Rotary(nn.Module):
    """Root-mean-square norms, rotary positions, fewer keys than queries, and a gated layer, as in Llama."""

    def __init__(self, width=16):
        super().__init__()
        self.words, self.scale = nn.Embedding(20, width), nn.Parameter(torch.rand(width) + 0.5)
        self.query, self.key, self.value = (nn.Linear(width, out, bias=False) for out in (width, width // 2, width // 2))
        self.gate, self.up, self.down = nn.Linear(width, 16, bias=False), nn.Linear(width, 16, bias=False), nn.Linear(16, width, bias=False)
        self.head = nn.Linear(width, CLASSES, bias=False)

    def norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale

    def forward(self, words):
        count, length = words.shape
        x = self.words(words)
        y = self.norm(x)
        query, key, value = (part(y).view(count, length, -1, 4).transpose(1, 2) for part in (self.query, self.key, self.value))
        angles = torch.outer(torch.arange(length).float(), torch.tensor([1.0, 0.01])).to(x.dtype)
        angles = torch.cat([angles, angles], -1)
        query, key = (z * angles.cos() + torch.cat([-z[..., 2:], z[..., :2]], -1) * angles.sin() for z in (query, key))
        key, value = (z[:, :, None].expand(count, 2, 2, length, 4).reshape(count, 4, length, 4) for z in (key, value))
        mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1).to(x.dtype)
        x = x + ((query @ key.transpose(2, 3) / 2 + mask).softmax(-1) @ value).transpose(1, 2).reshape(count, length, -1)
        y = self.norm(x)
        return self.head((x + self.down(F.silu(self.gate(y)) * self.up(y)))[:, -1])


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.words, self.layers = nn.Embedding(20, 4), kind(4, 5, 2, batch_first=True, **options)
        self.head = nn.Linear(10 if options.get("bidirectional") else 5, CLASSES)

    def forward(self, words):
        return self.head(self.layers(self.words(words))[0][:, -1])


class Blocks(nn.Module):
    """The blocks of convolutional networks: inverted residual with squeeze and excitation, channel shuffle, dense connection."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.GroupNorm(4, 16))
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
        self.narrow, self.grouped = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.dense, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        y = self.deep(x)
        x = x + self.narrow(y * self.squeeze(y))
        count, channels, high, wide = x.size()
        y = self.grouped(x).view(count, 2, channels // 2, high, wide).transpose(1, 2).contiguous().view(count, -1, high, wide)
        return self.head(F.avg_pool2d(F.silu(self.dense(torch.cat([x, y], 1))), 2).flatten(2).mean(-1))


class Unet(nn.Module):
    """Down and up again: a strided and a transposed convolution, instance norm, interpolation to the input's size."""

    def __init__(self):
        super().__init__()
        self.first, self.down, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.InstanceNorm2d(6, affine=True)
        self.up, self.wide, self.last = nn.ConvTranspose2d(6, 4, 2, 2), nn.Conv2d(6, 4, 1), nn.Conv2d(12, CLASSES, 3, padding=1)

    def forward(self, x):
        first = F.leaky_relu(self.first(x))
        low = F.elu(self.norm(self.down(first)))
        wide = F.interpolate(self.wide(low), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([first, self.up(low), wide], 1)).mean((2, 3))


def words(rows, length):
    return [torch.randint(0, 20, (rows, length))]


def masked(rows, length):
    return [*words(rows, length), (torch.arange(length)[None] < length - torch.arange(rows)[:, None]).long()]


def vectors(rows, length):
    return [torch.randn(rows, length, 8)]


def images(rows, side):
    return [torch.randn(rows, 3, 2 * side, 4 * side)]


def as_exported(rows, length):
    """The exporter writes sizes into PyTorch's own attention."""
    return vectors(2, 6)


# Axes that are dynamic.
ROWS = {0: "N"}
SENTENCES = {0: "N", 1: "S"}
IMAGES = {0: "N", 2: "H", 3: "W"}
# By name: the model, its inputs, their dynamic axes, and the opset; `None`: torch.onnx.dynamo_export.
MODELS = {
    "encoder_ts17": (Encoder, as_exported, SENTENCES, 17),
    "encoder_prenorm_ts14": (lambda: Encoder(norm_first=True, activation="gelu"), as_exported, SENTENCES, 14),
    "encoder_dynamo": (Encoder, vectors, SENTENCES, None),
    "bert_ts13": (Bert, masked, SENTENCES, 13),
    "gpt_ts16": (Gpt, words, SENTENCES, 16),
    "gpt_dynamo": (Gpt, words, SENTENCES, None),
    "vit_ts17": (Vit, lambda rows, _: [torch.randn(rows, 3, 12, 12)], ROWS, 17),
    "windows_ts13": (Windows, lambda rows, _: [torch.randn(rows, 3, 12, 20)], ROWS, 13),
    "rotary_ts15": (Rotary, words, SENTENCES, 15),
    "lstm_ts17": (lambda: Recurrent(nn.LSTM, bidirectional=True), lambda rows, _: words(rows, 6), ROWS, 17),
    "gru_ts13": (lambda: Recurrent(nn.GRU), lambda rows, _: words(rows, 6), ROWS, 13),
    "blocks_ts13": (Blocks, images, IMAGES, 13),
    "unet_ts17": (Unet, images, IMAGES, 17),
}


def export(model, inputs, axes, opset, path):
    if opset is None:
        options = torch.onnx.ExportOptions(dynamic_shapes=True)
        torch.onnx.dynamo_export(model, *inputs, export_options=options).save(str(path))
        return
    names = [f"input{i}" for i in range(len(inputs))]
    dynamic = {**{name: axes for name in names}, "output": {0: "N"}}
    training = torch.onnx.TrainingMode.TRAINING
    torch.onnx.export(model, tuple(inputs), path, input_names=names, output_names=["output"], opset_version=opset,
                      dynamic_axes=dynamic, training=training, do_constant_folding=False)


def record(model, inputs, path):
    """The loss and its gradients in double."""
    model = copy.deepcopy(model).double()
    labels = torch.randint(0, CLASSES, (len(inputs[0]),))
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    loss = F.cross_entropy(model(*wide), labels)
    loss.backward()
    gradients = {f"gradient/{name}": p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    fed = {f"input/{i}": x.numpy() for i, x in enumerate(inputs)}
    np.savez_compressed(path, **fed, **gradients, labels=labels.numpy(), loss=loss.item())


def main(folder):
    for name, (make, inputs, axes, opset) in MODELS.items():
        torch.manual_seed(0)
        model = make().train()
        with torch.no_grad():
            # Parameters that begin with the same values would be exported as one.
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        state = copy.deepcopy(model.state_dict())
        export(model, inputs(2, 6), axes, opset, folder / f"{name}.onnx")
        model.load_state_dict(state)
        # Other sizes than those that the exporter saw.
        record(model, inputs(3, 8), folder / f"{name}.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
