"""Running isaac-rewrite, and reading files as it does: as bytes."""

import json
import os
import subprocess
from dataclasses import dataclass

import onnx

GRAPH, OPSET_IMPORT, TRAINING_INFO = 7, 8, 20  # fields of a ModelProto
ALGORITHM = 2  # of a TrainingInfoProto
NODE = 1  # of a GraphProto


@dataclass
class Rewritten:
    """What the program made of a model."""

    report: dict
    before: bytes
    after: bytes

    @property
    def model(self):
        return onnx.load_from_string(self.after)

    @property
    def layers(self):
        """By weight: the outputs of its products, and the reason for which it is left alone."""
        found = {}
        for layer in self.report["layers"]:
            assert layer["rewritten"] == (layer["reason_code"] is None), layer
            assert layer["weight"] not in found, layer
            found[layer["weight"]] = (frozenset(layer["product_outputs"]), layer["reason_code"])
        return found


def call(*arguments):
    """Runs the program; the caller looks at the exit status."""
    command = [os.environ["ISAAC_REWRITE"], *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rewrite(model, folder, *arguments):
    """Rewrites a model, which is written to `folder` first."""
    before = model if isinstance(model, bytes) else model.SerializeToString()
    source, target = folder / "model.onnx", folder / "rewritten.onnx"
    source.write_bytes(before)
    done = call(source, "-o", target, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return Rewritten(json.loads(done.stdout), before, target.read_bytes())


def training_map(model):
    """What the metadata of a training graph say of its inputs and outputs."""
    [text] = [entry.value for entry in model.metadata_props if entry.key == "isaac.training"]
    return json.loads(text)


def fields(message):
    """The fields of an encoded protobuf message, in order: (number, payload)."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    found = []
    while at < len(message):
        tag = varint()
        start = at
        if tag & 7 == 0:
            varint()
        elif tag & 7 == 2:
            size = varint()
            start, at = at, at + size
        else:
            at += {1: 8, 5: 4}[tag & 7]
        found.append((tag >> 3, message[start:at]))
    return found


def graphs(model):
    """The encoded graphs of an encoded model: the main one, then the algorithms of its training infos."""
    for number, payload in fields(model):
        if number == GRAPH:
            yield payload
    for number, payload in fields(model):
        if number == TRAINING_INFO:
            yield from (inner for field, inner in fields(payload) if field == ALGORITHM)


def bindings(model):
    """What training infos hold besides algorithms."""
    infos = [fields(payload) for number, payload in fields(model) if number == TRAINING_INFO]
    return [[field for field in info if field[0] != ALGORITHM] for info in infos]


def nodes(graph):
    return [payload for number, payload in fields(graph) if number == NODE]
