"""Numbers of the paper that README and docs quote are those that are stored.

A quotation is the number followed by `<!-- paper: ID SPEC -->`, such as
`31.0 %<!-- paper: tying-parameters.gpt2_small .1% -->`.
"""

import re
from pathlib import Path

import pytest

from assay.experiments.claim import Number
from assay.experiments.paper.stored import read_report

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "docs" / "paper"
_QUOTED = re.compile(r"(\S+(?: %)?)<!-- paper: (\S+) (\S+) -->")


def quotations(text):
    return [found.groups() for found in _QUOTED.finditer(text)]


def stored():
    claims = read_report(PAPER).claims.values()
    return {n["id"]: n for claim in claims for n in claim["numbers"]}


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_a_quotation_is_recognised():
    text = "GPT-2 small saves 23.7 %<!-- paper: tying-parameters.gpt2_small .1% --> of it"
    assert quotations(text) == [("23.7 %", "tying-parameters.gpt2_small", ".1%")]


@pytest.mark.skipif(not PAPER.is_dir(), reason="docs/paper was not written yet")
@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_every_number_quoted_is_the_stored_one(page):
    known = stored()
    for shown, name, spec in quotations(page.read_text(encoding="utf-8")):
        assert name in known, f"{page.name} quotes {name}, which the paper does not have"
        exact = format(Number(name, known[name]["value"]), spec)
        assert shown.replace(" %", "%").replace("−", "-") == exact, f"{page.name}: {name}"


@pytest.mark.skipif(not PAPER.is_dir(), reason="docs/paper was not written yet")
def test_the_readme_quotes_the_paper():
    assert quotations((ROOT / "README.md").read_text(encoding="utf-8"))
