"""How long a whole training step takes, and how much memory: ours, ONNX Runtime's training API, PyTorch, the authors' code.

    cargo xtask bench step [--models 5x400 ...] [--threads 1 2] [--seconds N] [--csv FILE]

The networks are those of the paper's Table 2, at batch 60, a small CNN, ResNet-18 and an encoder, with plain SGD. Each variant runs in a process of its own, and the processes take
turns, so that whatever else the machine does meets all of them; times are medians. Networks that would not fit into memory
several times run one variant after the other, each in turns with our gradient. A ratio to our gradient is the median of
those of turns that follow each other. `memory` is the process's peak, with the runtime itself in it.
"""

import argparse
import csv
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent / "step"
# Batches and layers are in step/networks.py.
PERCEPTRONS = ("5x100", "5x400", "5x1600", "5x6400", "auto-encoder")
NETWORKS = (*PERCEPTRONS, "cnn", "resnet18", "encoder")
# By name of a variant: the script in step/, the variable that names its interpreter, and what the script is told.
VARIANTS = {
    "ours, gradient": ("ours.py", "ISAAC_STOCK", ["gradient"]),
    "ours, zeta*": ("ours.py", "ISAAC_STOCK", ["zeta-star"]),
    "ours, zeta": ("ours.py", "ISAAC_STOCK", ["zeta"]),
    "ours, K-FAC": ("ours.py", "ISAAC_STOCK", ["kfac"]),
    "ORT training, gradient": ("ort_training_api.py", "ISAAC_TRAINING", []),
    "PyTorch, gradient": ("pytorch.py", "ISAAC_PYTORCH", ["gradient"]),
    "PyTorch, zeta* (authors)": ("pytorch.py", "ISAAC_PYTORCH", ["zeta-star"]),
    "PyTorch, K-FAC (BackPACK)": ("pytorch.py", "ISAAC_PYTORCH", ["kfac"]),
}
BASE = "ours, gradient"
# Others take their factors from layers in a row only, or are no matter of layers with a few linear ones among them.
OF_PERCEPTRONS = ("ours, zeta", "ours, K-FAC", "PyTorch, K-FAC (BackPACK)")
BYTES_AT_ONCE = 80_000_000
# So that small networks run for a while in caches that they have filled themselves, as in training.
SECONDS_PER_TURN = 0.2
FEWEST_STEPS = 3


class Worker:
    """A variant in its process. It answers each line with the seconds that so many steps took, and the end of input with its peak memory."""

    def __init__(self, name, network, threads, folder):
        script, interpreter, arguments = VARIANTS[name]
        loss = "mse" if network == "auto-encoder" else "cross-entropy"
        command = [os.environ[interpreter], str(HERE / script), network, loss, str(threads), str(folder), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.steps, self.turns = FEWEST_STEPS, []
        self.read("ready")

    def read(self, word):
        line = self.process.stdout.readline().split()
        if not line or line[0] != word:
            raise SystemExit(f"{self.process.args}: ended with status {self.process.wait()}")
        return [float(number) for number in line[1:]]

    def run(self, steps):
        """The seconds that each of so many steps takes."""
        print(steps, file=self.process.stdin, flush=True)
        return self.read("seconds")

    def warm_up(self):
        self.steps = max(FEWEST_STEPS, math.ceil(SECONDS_PER_TURN / self.run(FEWEST_STEPS)[-1]))

    def turn(self):
        # The others' threads may still be busy during the first.
        self.turns.append(self.run(self.steps)[1:])

    def finish(self, base):
        """The median step in milliseconds, its ratio to that of another worker, and the peak memory in MB."""
        milliseconds = statistics.median(itertools.chain(*self.turns)) * 1e3
        pairs = zip(self.turns, base.turns, strict=True)
        ratio = statistics.median(statistics.median(mine) / statistics.median(other) for mine, other in pairs)
        self.process.stdin.close()
        (memory,) = self.read("memory")
        self.process.wait()
        return milliseconds, ratio, memory


def measure(network, threads, names, seconds, folder):
    """By variant: milliseconds, ratio to our gradient, and megabytes."""
    subprocess.run([os.environ["ISAAC_PYTORCH"], str(HERE / "export.py"), network, str(folder)], check=True)
    if (folder / "forward.onnx").stat().st_size > BYTES_AT_ONCE:
        groups = [[BASE, name] for name in names]
    else:
        groups = [[BASE, *names]]
    results = {}
    for group in groups:
        workers = {name: Worker(name, network, threads, folder) for name in group}
        for worker in workers.values():
            worker.warm_up()
        end = time.monotonic() + seconds * len(group)
        while time.monotonic() < end:
            for worker in workers.values():
                worker.turn()
        results |= {name: worker.finish(workers[BASE]) for name, worker in workers.items()}
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    others = [name for name in VARIANTS if name != BASE]
    parser.add_argument("--variants", nargs="+", choices=others, default=others, help="those beside our gradient")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5, help="how long each variant of each network runs")
    parser.add_argument("--csv")
    arguments = parser.parse_args()
    rows = []
    print("| network | threads | variant | ms a step | to our gradient | peak MB |\n|---|---|---|---|---|---|")
    for model in arguments.models:
        names = [name for name in arguments.variants if model in PERCEPTRONS or name not in OF_PERCEPTRONS]
        for threads in arguments.threads:
            with tempfile.TemporaryDirectory() as folder:
                results = measure(model, threads, names, arguments.seconds, Path(folder))
            for name, (milliseconds, ratio, memory) in results.items():
                rows.append([model, threads, name, milliseconds, ratio, memory])
                print(f"| {model} | {threads} | {name} | {milliseconds:.2f} | {ratio:.2f} | {memory:.0f} |")
            sys.stdout.flush()
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            csv.writer(file).writerows([["network", "threads", "variant", "ms", "ratio", "peak_mb"], *rows])


if __name__ == "__main__":
    main()
