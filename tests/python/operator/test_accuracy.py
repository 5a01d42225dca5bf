"""Float at every damping and scale at which float64 can tell what is right."""

import numpy as np
import pytest
from isaac_gemm import Reference, error, run, session

KINDS = {
    "normal": lambda rng, b, n: rng.normal(size=(b, n)),
    "after a ReLU": lambda rng, b, n: np.maximum(rng.normal(size=(b, n)), 0),
    "large mean": lambda rng, b, n: rng.normal(size=(b, n)) + 3,
    "one row": lambda rng, b, n: np.repeat(rng.normal(size=(1, n)), b, axis=0),
    "four rows": lambda rng, b, n: np.repeat(rng.normal(size=(4, n)), b // 4 + 1, axis=0)[:b],
    "rank 3": lambda rng, b, n: rng.normal(size=(b, 3)) @ rng.normal(size=(3, n)),
    "decaying": lambda rng, b, n: rng.normal(size=(b, n)) * np.exp(-12 * np.arange(n) / n),
    "sparse": lambda rng, b, n: (rng.random((b, n)) < 0.2) * rng.random((b, n)) * (rng.random(n) < 0.7),
}
SHAPES = [(8, 30, 20), (60, 100, 100), (100, 50, 60), (130, 200, 150)]


DAMPINGS = np.float32(10.0) ** np.arange(-8, 9, dtype=np.float32)


def check_dampings(kind, form, dampings):
    """All shapes and scales of one kind of input, at the dampings that are given for a number of rows and a scale."""
    rng = np.random.default_rng(5)
    node = session(("G", "A", "lambda_a"), form=form)
    checked = 0
    for (b, n, m), scale in [(shape, scale) for shape in SHAPES for scale in (1e-3, 1.0, 1e3)]:
        a = (KINDS[kind](rng, b, n) * scale).astype(np.float32)
        g = rng.normal(size=(b, m)).astype(np.float32)
        reference = Reference(a)
        expected = reference.for_gradients(g)
        for damping in dampings(b, scale):
            # Beyond this the smallest eigenvalue of the damped matrix is lost in the rounding of float64.
            if reference.s[0] ** 2 / (b * damping) < 1e9:
                relative = error(run(node, g, a, lambda_a=damping), expected(damping))
                assert relative < 1e-5, (b, n, m, scale, damping, relative)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("form", ["samples", "features"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_damping(kind, form):
    check_dampings(kind, form, lambda rows, scale: DAMPINGS)


@pytest.mark.parametrize("rows", [300, 1024])
def test_many_equal_rows(rows):
    """The terms of a product with the inverse are all the same, and so are their rounding errors."""
    rng = np.random.default_rng(6)
    node = session(("G", "A", "lambda_a"), form="samples")
    a = np.repeat(rng.normal(size=(1, 10)), rows, axis=0).astype(np.float32)
    g = rng.normal(size=(rows, 50)).astype(np.float32)
    expected = Reference(a).for_gradients(g)
    for damping in np.float32([0.1, 1, 3, 10, 30, 100, 1000, 1e5]):
        assert error(run(node, g, a, lambda_a=damping), expected(damping)) < 1e-5


CONDITIONS = [1.05, 1.3, 1.6, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 20, 40]


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shape", [(128, 150, 400), (200, 210, 50), (400, 410, 500)])
@pytest.mark.parametrize("seed", [1, 5, 8])
def test_groups_of_equal_samples(seed, shape, groups):
    """The same where rows are conditioned by substitution and where they are by an inverse, on either side of a product."""
    rng = np.random.default_rng(seed)
    node = session(("G", "A", "lambda_a"), form="samples")
    b, n, m = shape
    a = np.repeat(rng.normal(size=(groups, n)), -(-b // groups), axis=0)[:b].astype(np.float32)
    g = rng.normal(size=(b, m)).astype(np.float32)
    reference = Reference(a)
    expected = reference.for_gradients(g)
    for condition in CONDITIONS:
        damping = np.float32(reference.s[0] ** 2 / b / (condition - 1))
        assert error(run(node, g, a, lambda_a=damping), expected(damping)) < 1e-5, condition


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("features", [66, 90, 100, 256, 512])
@pytest.mark.parametrize("seed", [1, 5, 8])
def test_groups_of_equal_features(seed, features, groups):
    """The same where sums of equal terms are multiplied with the inverse last of all, at condition numbers up to 40."""
    rng = np.random.default_rng(seed)
    node = session(("G", "A", "lambda_a"), form="features")
    a = np.repeat(rng.normal(size=(300, groups)), -(-features // groups), axis=1)[:, :features].astype(np.float32)
    g = rng.normal(size=(300, 50)).astype(np.float32)
    reference = Reference(a)
    expected = reference.for_gradients(g)
    for condition in CONDITIONS:
        damping = np.float32(reference.s[0] ** 2 / 300 / (condition - 1))
        assert error(run(node, g, a, lambda_a=damping), expected(damping)) < 1e-5, condition


@pytest.mark.parametrize("transposed", [False, True])
def test_large_batches_of_full_rank(transposed):
    """Here the inverse is small all over, with nothing on its diagonal that is close to one."""
    rng = np.random.default_rng(2)
    node = session(("G", "A", "lambda_a"), form="features" if transposed else "samples")
    a = rng.normal(size=(1600, 300) if transposed else (300, 1600)).astype(np.float32)
    g = rng.normal(size=(len(a), 40)).astype(np.float32)
    expected = Reference(a).for_gradients(g)
    for damping in DAMPINGS:
        assert error(run(node, g, a, lambda_a=damping), expected(damping)) < 1e-5, damping


def test_memory_does_not_grow():
    """Buffers are kept from call to call; the process settles after the first of them."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    rng = np.random.default_rng(0)
    node = session(("G", "A", "lambda_a"))
    g, a = (rng.normal(size=(60, 784)).astype(np.float32) for _ in range(2))
    a[30:] = a[:30]  # for the part that is computed in double
    settled = 0
    for count in range(200):
        run(node, g, a, lambda_a=0.01)
        if count == 20:
            settled = resident()
    assert resident() - settled < 4 << 20
