"""Trains the demo's network twice, with the gradient and with zeta*, side by side on the same batches.

`cargo xtask demo` prepares what this script needs, and runs it.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

import mnist
from curves import draw_curves
from training import BATCH, Run, batches

LEARNING_RATE = {"gradient": 0.3, "zeta*": 1.0}

# The runs take turns, so that whatever else the machine does slows both alike. A turn is long enough that the other
# run's idle threads, which spin for a moment before they sleep, do not matter to the median step.
TURN = 25


def train(runs, data, epochs, seed):
    """Trains all runs on the same batches, a turn each."""
    steps = epochs * -(-len(data.train.labels) // BATCH)
    turn = []
    with tqdm(total=steps * len(runs), unit="step", desc="training") as progress:
        for step, batch in enumerate(batches(data.train, epochs, seed), start=1):
            turn.append(batch)
            if len(turn) < TURN and step < steps:
                continue
            for run in runs.values():
                for images, labels in turn:
                    run.step(images, labels)
                progress.update(len(turn))
            progress.set_postfix({name: f"{np.mean(run.losses[-100:]):.3f}" for name, run in runs.items()})
            turn = []


def table(runs, data, epochs):
    """The results as text: the mean loss over the last epoch's steps, test accuracy, median time of a step."""
    rows = [("", "train loss", "test accuracy", "time per step", "overhead")]
    plain = float(np.median(runs["gradient"].seconds))
    for name, run in runs.items():
        last_epoch = np.mean(run.losses[-(len(run.losses) // epochs) :])
        _, accuracy = run.evaluate(data.test)
        seconds = float(np.median(run.seconds))
        overhead = "" if name == "gradient" else f"{100 * (seconds / plain - 1):+.1f} %"
        label = f"{name} (lr {LEARNING_RATE[name]})"
        rows.append((label, f"{last_epoch:.4f}", f"{100 * accuracy:.2f} %", f"{1000 * seconds:.2f} ms", overhead))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder with the training artifacts")
    parser.add_argument("--rewritten", type=Path, required=True, help="the rewritten training graph")
    parser.add_argument("--library", type=Path, required=True, help="libisaac.so")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with the four MNIST files")
    source.add_argument("--download", type=Path, help="folder to download the four MNIST files to, once")
    arguments = parser.parse_args()

    if arguments.download:
        mnist.fetch(arguments.download)
    data = mnist.load(arguments.data or arguments.download)
    runs = {
        "gradient": Run(arguments.artifacts, LEARNING_RATE["gradient"]),
        "zeta*": Run(arguments.artifacts, LEARNING_RATE["zeta*"], arguments.rewritten, arguments.library),
    }
    train(runs, data, arguments.epochs, arguments.seed)
    print(f"\n{arguments.epochs} epochs of MNIST, 5 linear layers, batch {BATCH}; loss over the last epoch\n")
    print(table(runs, data, arguments.epochs), end="\n\n")
    for path in draw_curves(runs, len(data.train.labels) // BATCH, arguments.out / "loss"):
        print(path)


if __name__ == "__main__":
    main()
