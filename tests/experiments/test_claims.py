"""Every claim has its words in both languages, and they speak of the same things."""

import string

import pytest

from assay.experiments.claim import BUDGETS
from assay.experiments.claims import CLAIMS
from assay.experiments.claims.tying_parameters import share
from assay.experiments.evidence import Evidence
from assay.experiments.paper.interface import interface
from assay.experiments.tasks import TASKS
from assay.experiments.words import words_of

every_claim = pytest.mark.parametrize("claim", CLAIMS, ids=[claim.id for claim in CLAIMS])


def fields(template):
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_no_two_claims_have_one_name():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)


def test_every_row_of_the_audit_has_its_claim():
    """The ids of the table of claims; chat-range and the limits of section 6 included."""
    rows = {
        "init-loss", "logit-scale", "softmax-shape", "untrained-text", "temperature", "chat-range",
        "tying-parameters", "tying-quality", "layernorm-stability", "sigma-eps", "position-order",
        "position-extrapolation", "rmsnorm", "pre-post", "adaptive-temperature", "complexity",
        "reproducibility", "overfitting-scale",
    }  # fmt: skip
    assert rows <= {claim.id for claim in CLAIMS}


@every_claim
def test_both_languages_say_the_same_things_with_the_same_numbers(claim):
    english, vietnamese = (words_of(claim.id, language) for language in ("en", "vi"))
    assert english.parts.keys() == vietnamese.parts.keys()
    for part, template in english.parts.items():
        assert fields(template) == fields(vietnamese.parts[part]), part
    assert fields(english.discussion) == fields(vietnamese.discussion)
    assert {t: w.columns.keys() for t, w in english.tables.items()} == {
        t: w.columns.keys() for t, w in vietnamese.tables.items()
    }
    assert {f: w.names.keys() for f, w in english.figures.items()} == {
        f: w.names.keys() for f, w in vietnamese.figures.items()
    }
    assert english.claim != vietnamese.claim
    assert bool(english.quote) == bool(vietnamese.quote) == (claim.section != "beyond")


@every_claim
def test_a_section_of_the_article_has_a_heading(claim):
    for language in ("en", "vi"):
        told = interface(language)
        assert (told.heading(claim) == told.beyond) == (claim.section == "beyond")


@every_claim
@pytest.mark.parametrize("budget", BUDGETS)
def test_what_a_claim_asks_for_first_are_tasks_that_differ(claim, budget):
    asked = claim.tasks(budget, Evidence())
    assert all(isinstance(task, TASKS) for task in asked)


def test_what_tying_saves_is_the_closed_form_of_the_audit():
    (claim,) = (claim for claim in CLAIMS if claim.id == "tying-parameters")
    judged = claim.judge("quick", Evidence())
    numbers = {number.id: number.value for number in judged.numbers}
    assert round(numbers["low"]) == 2094
    assert round(numbers["high"]) == 5584
    assert round(numbers["gpt2_small"], 3) == 0.237
    assert round(numbers["gpt2_small_of_tied"], 2) == 0.31
    assert round(numbers["gpt2_xl"], 3) == 0.049
    assert judged.verdict == "holds only when"
    assert share(50_257, 0) == 0.5
