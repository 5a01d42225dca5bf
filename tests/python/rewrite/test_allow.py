"""`--allow CODE` lifts a refusal: each product is then conditioned by its own rows."""

import dataclasses

import checks
import corpus
import pytest
import step_net
from tool import call, rewrite

GENERATED = ["tied_autoencoder", "tied_autoencoder_3d", "masked_linear", "lora_merged", "weight_norm", "tied_embedding"]
STEPS = ["tied", "masked", "factorised", "other_term"]
NEVER = [("lstm", "opaque"), ("mlp", "unsupported"), ("mlp", "not-selected"), ("mlp", "no-such-code")]


@pytest.fixture(
    scope="module",
    params=[(corpus.generate, n) for n in GENERATED] + [(step_net.build, n) for n in STEPS],
    ids=lambda p: p[1],
)
def case(request):
    build, name = request.param
    return build(name)


def reasons(case):
    return sorted({layer.reason for layer in case.layers} - {None})


def lifted(case):
    """What the layers are when every refusal is lifted."""

    def one_by_one(layer):
        groups = tuple((product,) for group in layer.groups for product in group)
        return dataclasses.replace(layer, groups=groups, reason=None) if layer.reason else layer

    arguments = [argument for code in reasons(case) for argument in ("--allow", code)]
    layers = [one_by_one(layer) for layer in case.layers]
    return dataclasses.replace(case, layers=layers, arguments=(*case.arguments, *arguments))


def test_layers(case, tmp_path):
    allowed = lifted(case)
    rewritten = rewrite(case.model, tmp_path, *allowed.arguments)
    checks.check_structure(rewritten, allowed)


def test_numbers(case, tmp_path):
    allowed = lifted(case)
    rewritten = rewrite(case.model, tmp_path, "--lambda", checks.DAMPING, *allowed.arguments)
    checks.check_numbers(rewritten, allowed)
    checks.check_plain(case.model, allowed, tmp_path)


def test_another_code_lifts_nothing(case, tmp_path):
    [code] = reasons(case)
    other = "derived" if code != "derived" else "tied-transpose"
    checks.check_layers(rewrite(case.model, tmp_path, "--allow", other), case)


@pytest.mark.parametrize(("name", "code"), NEVER)
def test_what_cannot_be_lifted_is_a_usage_error(name, code, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(corpus.generate(name).model.SerializeToString())
    assert call(model, "-o", tmp_path / "out.onnx", "--allow", code).returncode == 2
