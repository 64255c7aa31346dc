"""The words around the claims: headings, verdicts and the article's sections, in each language."""

import tomllib
from functools import cache
from pathlib import Path

from assay.experiments.claim import Claim
from assay.experiments.words import Language
from assay.schema import Config, decode


class Interface(Config):
    """Headings of a report in one language."""

    title: str
    abstract: str
    summary: str
    beyond: str
    section: str
    claim: str
    verdict: str
    quote: str
    protocol: str
    findings: str
    limits: str
    discussion: str
    sources: str
    numbers: str
    number: str
    value: str
    interval: str
    unit: str
    tasks: str
    none: str
    records: str
    records_text: str
    again: str
    key: str
    kind: str
    state: str
    found: str
    budget: str
    made: str
    verdicts: dict[str, str]
    sections: dict[str, str]
    cells: dict[str, str]
    """Words that stand alone in tables; settings, such as `rope`, are the same in all languages."""

    def heading(self, claim: Claim) -> str:
        """Return the article's section that a claim is first made in, with its title."""
        first = claim.section.split(",")[0].strip()
        return f"{first} {self.sections[first]}" if first in self.sections else self.beyond

    def cell(self, text: str) -> str:
        """Return what stands in a table, in this language where it is a word of it."""
        return self.cells.get(text) or self.verdicts.get(text) or text


class _Both(Config):
    en: Interface
    vi: Interface


@cache
def interface(language: Language) -> Interface:
    """Return the words of a language."""
    text = (Path(__file__).parent / "interface.toml").read_text(encoding="utf-8")
    found: Interface = getattr(decode(_Both, tomllib.loads(text)), language)
    return found
