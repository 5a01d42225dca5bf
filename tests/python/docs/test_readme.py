"""The README shows the examples as they are, and links to what is there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "language, example",
    [("python", "fine_tune.py"), ("python", "train_api.py"), ("python", "train.py"), ("cpp", "train.cpp"), ("rust", "train.rs")],
)
def test_the_readme_shows_the_example(language, example):
    assert (language, (ROOT / "examples" / example).read_text()) in BLOCKS


def test_every_code_block_is_an_example_or_for_the_shell():
    assert {language for language, _ in BLOCKS} == {"sh", "python", "cpp", "rust", "bibtex"}
    assert sum(language not in ("sh", "bibtex") for language, _ in BLOCKS) == 5


def test_every_link_inside_the_repository_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert "docs/demo.svg" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_option_that_is_named_is_one_of_a_tool():
    helps = [subprocess.run([os.environ[tool], "--help"], capture_output=True, text=True).stdout for tool in ("ISAAC_REWRITE", "ISAAC_TRAIN")]
    known = set(re.findall(r"--[a-z][a-z-]*", " ".join(helps)))
    section = README[README.index("### Fine-tuning") : README.index("### Python, with ONNX Runtime's training API")]
    # Of cargo.
    named = set(re.findall(r"--[a-z][a-z-]*", section)) - {"--features", "--release"}
    assert named - known == set()
    assert len(named) > 20
