"""Draws the loss curves of training runs."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
import numpy as np  # noqa: E402

WINDOW = 100
STRIDE = 5
COLORS = {"gradient": "#8a8a8a", "zeta*": "#c23b22"}
LABELS = {"gradient": "∇, gradient descent", "zeta*": "ζ*, ISAAC Newton"}


def smoothed(losses):
    """(steps, means): the mean loss over a sliding window, at every few of the steps where a window ends."""
    window = min(WINDOW, len(losses))
    means = np.convolve(losses, np.ones(window) / window, mode="valid")
    return np.arange(window, len(losses) + 1)[::STRIDE], means[::STRIDE]


def draw_curves(runs, steps_per_epoch, path):
    """Writes `path`.svg and `path`.png, and returns both names. The same runs give the same SVG, byte for byte."""
    with pyplot.rc_context({"svg.hashsalt": "isaac", "svg.fonttype": "none", "font.size": 11}):
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        for name, run in runs.items():
            steps, means = smoothed(run.losses)
            axes.plot(steps / steps_per_epoch, means, color=COLORS[name], linewidth=2, label=LABELS[name])
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"training loss, mean of {WINDOW} steps")
        axes.set_title("MNIST in ONNX Runtime, 5 linear layers, batch 60", fontsize=11)
        axes.grid(which="both", color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        paths = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150)
        pyplot.close(figure)
    return paths
