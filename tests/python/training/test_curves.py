"""The picture of the loss curves."""

from types import SimpleNamespace

import numpy as np

from curves import draw_curves, smoothed


def test_the_mean_over_a_sliding_window():
    steps, means = smoothed(np.arange(200.0))
    assert steps[0] == 100
    np.testing.assert_allclose(means, steps - 50.5)


def test_a_run_shorter_than_the_window_is_one_point():
    steps, means = smoothed([3.0, 1.0])
    assert (steps.tolist(), means.tolist()) == ([2], [2.0])


def test_the_same_losses_give_the_same_picture(tmp_path):
    runs = {"gradient": SimpleNamespace(losses=np.linspace(2, 1, 150)), "zeta*": SimpleNamespace(losses=[1.0] * 150)}
    svg, png = draw_curves(runs, 50, tmp_path / "first" / "loss")
    again, _ = draw_curves(runs, 50, tmp_path / "again" / "loss")
    assert svg.read_bytes() == again.read_bytes()
    assert "ISAAC Newton" in svg.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
