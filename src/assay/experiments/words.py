"""The words of a claim in each language, read from the TOML file beside its module."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from assay.errors import ConfigError
from assay.schema import Config, decode

Language = Literal["en", "vi"]
LANGUAGES: tuple[Language, ...] = ("en", "vi")
_FOLDER = Path(__file__).parent / "claims"


class TableWords(Config):
    """Title and headings of a table."""

    title: str
    columns: dict[str, str]


class FigureWords(Config):
    """Title and axes of a figure, with units; `names` are those of the values of its series."""

    title: str
    x: str
    y: str
    series: str = ""
    value: str = ""
    facet: str = ""
    names: dict[str, str] = Field(default_factory=dict)


class ClaimWords(Config):
    """All a claim says in one language; `{number:.2f}` stands for a number of its judgement."""

    title: str
    """A few words."""
    claim: str
    """One sentence that can be false."""
    quote: str
    """What the article says; its own words in Vietnamese. Empty beyond the article."""
    protocol: str
    """What was run and how it is judged."""
    parts: dict[str, str]
    """A sentence for each part, true whatever its numbers turn out to be."""
    limits: str
    """What it does not show."""
    discussion: str = ""
    """What others found, and where they disagree."""
    tables: dict[str, TableWords] = Field(default_factory=dict)
    figures: dict[str, FigureWords] = Field(default_factory=dict)


class _Both(Config):
    en: ClaimWords
    vi: ClaimWords


@cache
def words_of(claim_id: str, language: Language) -> ClaimWords:
    """Return the words of a claim.

    Raises:
        ConfigError: If its file does not hold them.
    """
    path = _FOLDER / f"{claim_id.replace('-', '_')}.toml"
    try:
        both = decode(_Both, tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: {error}.") from None
    found: ClaimWords = getattr(both, language)
    return found
