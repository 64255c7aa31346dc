"""A claim with its evidence and what was judged of it: all that a report needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from assay.experiments.claim import Budget, Claim, Judgement, Number
from assay.experiments.evidence import Evidence, Record


@final
@dataclass(frozen=True, slots=True)
class Judged:
    """One claim of a report.

    Attributes:
        claim: What was claimed.
        budget: At which it was run.
        evidence: Of the whole report.
        judgement: What follows.
    """

    claim: Claim
    budget: Budget
    evidence: Evidence
    judgement: Judgement

    @property
    def numbers(self) -> dict[str, Number]:
        """Every number of the claim, those of its tables included, by its id."""
        cells = (
            cell
            for table in self.judgement.tables
            for row in table.rows
            for cell in row
            if isinstance(cell, Number)
        )
        return {number.id: number for number in (*self.judgement.numbers, *cells)}

    def keys(self, number: Number) -> list[str]:
        """Return the records that a number was computed from."""
        return list(dict.fromkeys(self.evidence[task].key for task in number.of))

    def records(self) -> Iterator[Record]:
        """Yield the records of the claim, in the order in which they were asked for."""
        for task in dict.fromkeys(self.claim.tasks(self.budget, self.evidence)):
            yield self.evidence[task]

    def as_json(self) -> dict[str, Any]:
        """Return verdicts and numbers as they are stored and verified."""
        return {
            "id": self.claim.id,
            "section": self.claim.section,
            "verdict": self.judgement.verdict,
            "parts": {part.id: part.verdict for part in self.judgement.parts},
            "numbers": [
                {
                    "id": f"{self.claim.id}.{number.id}",
                    "value": number.value if number.value == number.value else None,
                    "low": number.low,
                    "high": number.high,
                    "level": number.level if number.low is not None else None,
                    "unit": number.unit,
                    "of": self.keys(number),
                }
                for number in self.numbers.values()
            ],
        }


def judge_all(claims: Sequence[Claim], budget: Budget, evidence: Evidence) -> list[Judged]:
    """Judge each claim by the evidence."""
    return [Judged(claim, budget, evidence, claim.judge(budget, evidence)) for claim in claims]
