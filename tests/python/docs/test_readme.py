"""The README shows the examples as they are, and links to what is there."""

import re
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
