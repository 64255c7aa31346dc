"""From several findings to one verdict, by the same rule in every claim that uses it."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from assay.experiments.claim import Number, Verdict
from assay.experiments.compare import Word

Wanted = Literal["lower", "higher", "equivalent", "not lower", "not higher"]
_FOR_AND_AGAINST: Mapping[Wanted, tuple[set[Word], set[Word]]] = {
    "lower": ({"lower"}, {"higher", "equivalent"}),
    "higher": ({"higher"}, {"lower", "equivalent"}),
    "equivalent": ({"equivalent"}, {"lower", "higher", "diverges"}),
    "not lower": ({"higher", "equivalent"}, {"lower"}),
    "not higher": ({"lower", "equivalent"}, {"higher"}),
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


def of_words(words: Sequence[Word], wanted: Wanted) -> Verdict:
    """Return the verdict on "it is `wanted` everywhere" from one comparison for each place."""
    good, bad = _FOR_AND_AGAINST[wanted]
    return of_answers([True if word in good else False if word in bad else None for word in words])


def of_answers(answers: Sequence[bool | None]) -> Verdict:
    """Return the verdict on "it is so everywhere"; None is a place that was not resolved."""
    if False in answers:
        return "holds only when" if True in answers else "refuted"
    return "not resolved" if None in answers else "confirmed"


def of_facts(facts: Sequence[bool]) -> Verdict:
    """Return the verdict on what has no exceptions: one refutes it."""
    return "confirmed" if all(facts) else "refuted"


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
