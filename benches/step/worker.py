"""What every variant of the step benchmark does: read its arguments, and run steps when it is told to."""

import argparse
import resource
import sys
import time

import numpy as np

BATCH = 60
DAMPING = 1.0
LEARNING_RATE = 0.01


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("loss")
    parser.add_argument("threads", type=int)
    parser.add_argument("folder")
    parser.add_argument("method", nargs="?", default="gradient")
    parser.add_argument("--widths", type=int, nargs="+")
    return parser.parse_args()


def batch(widths, loss):
    """One batch of inputs in [0, 1), and its labels."""
    rng = np.random.default_rng(0)
    x = rng.random((BATCH, widths[0]), np.float32)
    return x, x if loss == "mse" else rng.integers(0, widths[-1], BATCH)


def serve(step):
    """Runs as many steps as each line of the input says."""
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print("seconds", *seconds, flush=True)
    print("memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
