"""What every variant of the step benchmark does: read its arguments, and run steps when it is told to."""

import argparse
import resource
import sys
import time
from pathlib import Path

DAMPING = 1.0
LEARNING_RATE = 0.01


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("loss")
    parser.add_argument("threads", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("method", nargs="?", default="gradient")
    return parser.parse_args()


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
