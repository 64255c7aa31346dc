"""From several findings to one verdict, by the same rule in every claim that uses it."""

import math
from collections.abc import Sequence

from assay.experiments.claim import Number, Verdict
from assay.experiments.compare import Word

_AGAINST: dict[Word, set[Word]] = {
    "lower": {"higher", "equivalent"},
    "higher": {"lower", "equivalent"},
    "equivalent": {"lower", "higher", "diverges"},
}


def whole(verdicts: Sequence[Verdict]) -> Verdict:
    """Return what may be said of a sentence of which these are the parts.

    One part refuted refutes it, or bounds it where others hold; an open part leaves open only what
    no other has settled.
    """
    found = set(verdicts) - {"not testable here"}
    holds = found & {"confirmed", "equivalent", "holds only when"}
    if found & {"refuted", "holds only when"}:
        return "holds only when" if holds else "refuted"
    if "not resolved" in found or not found:
        return "not resolved"
    return found.pop() if len(found) == 1 else "confirmed"


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Return what may be said of a sentence that needs every one of its parts."""
    for found in ("refuted", "not resolved", "holds only when"):
        if found in verdicts:
            return found
    return "confirmed"


def of_words(words: Sequence[Word], wanted: Word) -> Verdict:
    """Return the verdict on "it is `wanted` everywhere" from one comparison for each place."""
    against = _AGAINST[wanted]
    return of_answers(
        [True if word == wanted else False if word in against else None for word in words]
    )


def of_answers(answers: Sequence[bool | None]) -> Verdict:
    """Return the verdict on "it is so everywhere"; None is a place that was not resolved."""
    if False in answers:
        return "holds only when" if True in answers else "refuted"
    return "not resolved" if None in answers else "confirmed"


def above(number: Number, bound: float) -> bool | None:
    """Return whether a number lies above a bound with all of its interval; None if neither."""
    low = number.value if number.low is None else number.low
    high = number.value if number.high is None else number.high
    if math.isnan(number.value):
        return None
    return True if low > bound else False if high < bound else None


def below(number: Number, bound: float) -> bool | None:
    """Return whether a number lies below a bound with all of its interval; None if neither."""
    found = above(number, bound)
    return None if found is None else not found
