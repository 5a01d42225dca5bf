"""Rounding errors of IsaacGemm in float at every damping, as a Markdown table.

    ISAAC_LIBRARY=target/release/libisaac.so python benches/accuracy.py

Relative errors in the Frobenius norm against float64. `as published` does what the authors' package does, with NumPy in
float: an explicit inverse, and I - K(I+K)^-1 for as many rows as features or fewer.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python" / "operator"))
from isaac_gemm import Reference, run, session  # noqa: E402

DAMPINGS = [10.0**exponent for exponent in range(-8, 9, 2)] + [1e-3, 0.1, 10.0]
INPUTS = {
    "ReLU activations, 60 x 400": lambda rng: np.maximum(rng.normal(size=(60, 400)), 0),
    "the same, every row four times": lambda rng: np.repeat(np.maximum(rng.normal(size=(15, 400)), 0), 4, axis=0),
    "the same, 200 x 100": lambda rng: np.maximum(rng.normal(size=(200, 100)), 0),
}
OUTPUTS = 50


def relative(compute, expected):
    """As text. A computation that gives up has no digits."""
    try:
        return f"{np.linalg.norm(compute() - expected) / np.linalg.norm(expected):.0e}"
    except Exception as error:  # NumPy's and ONNX Runtime's
        return "singular" if "ingular" in str(error) or "pivot" in str(error) else str(error)


def as_published(g, a, damping):
    rows, features = a.shape
    one = np.float32(1)
    if rows < features:
        gram = a @ a.T / np.float32(rows)
        inverse = gram @ np.linalg.inv(gram / damping + np.eye(rows, dtype=np.float32))
        return g.T @ (np.eye(rows, dtype=np.float32) - one / damping * inverse) @ a
    gram = a.T @ a / np.float32(rows)
    return g.T @ a @ np.linalg.inv(gram + damping * np.eye(features, dtype=np.float32)) * damping


def zeta(g, a, g_bar, damping):
    u, s, vt = np.linalg.svd(g_bar.astype(np.float64), full_matrices=False)
    strength = s**2 / (len(g) * float(damping))
    zeta_star = Reference(a)(g, damping)
    return zeta_star - vt.T @ ((strength / (1 + strength))[:, None] * (vt @ zeta_star))


def main():
    columns = ["as published", "ζ* samples", "ζ* features", "ζ", "K-FAC"]
    names = ("G", "A", "lambda_a", "GBar", "lambda_g")
    star = {form: session(names[:3], form=form) for form in ("samples", "features")}
    both = {form: session(names, form=form) for form in ("auto", "kronecker")}
    for title, make in INPUTS.items():
        rng = np.random.default_rng(0)
        a = make(rng).astype(np.float32)
        g, g_bar = (rng.normal(size=(len(a), OUTPUTS)).astype(np.float32) for _ in range(2))
        print(f"\n**{title}**\n\n| λ | " + " | ".join(columns) + " |\n|" + "---|" * (1 + len(columns)))
        for damping in map(np.float32, sorted(DAMPINGS)):
            want_star, want = Reference(a)(g, damping), zeta(g, a, g_bar, damping)
            errors = [relative(lambda: as_published(g, a, damping), want_star)]
            errors += [relative(lambda: run(node, g, a, lambda_a=damping), want_star) for node in star.values()]
            others = dict(lambda_a=damping, lambda_g=damping, GBar=g_bar)
            errors += [relative(lambda: run(node, g, a, **others), want) for node in both.values()]
            print(f"| {damping:.0e} | " + " | ".join(errors) + " |")


if __name__ == "__main__":
    main()
