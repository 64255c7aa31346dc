"""Run the numbers of a report again, and say of each whether it came back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.errors import ConfigError, RunError
from assay.experiments.claim import Claim, Number
from assay.experiments.claims import CLAIMS
from assay.experiments.evidence import Evidence
from assay.experiments.laboratory import Laboratory, lacking
from assay.experiments.paper.judged import Judged
from assay.experiments.paper.rerun import Rerun, Verified, to_run
from assay.experiments.paper.stored import StoredReport, read_report
from assay.schema import shown


@dataclass(frozen=True, slots=True)
class Asked:
    """Numbers of a report that are to be run again.

    Attributes:
        report: As it was read.
        chosen: The claims they belong to, judged by the report's own evidence, and the numbers.
    """

    report: StoredReport
    chosen: Sequence[tuple[Judged, Sequence[Number]]]


def read_numbers(folder: Path, name: str = "", *, claims: Sequence[Claim] = CLAIMS) -> Asked:
    """Read a report and return numbers of it, which follow from its own evidence; run nothing.

    Args:
        folder: Of the report; every file of it is held to its hash first.
        name: Of a number, `CLAIM.NUMBER`, or of a claim; empty for the whole report.
        claims: Those this version has.

    Raises:
        RunError: If the report was changed, or its numbers do not follow from its own evidence.
        ConfigError: If it has no number of this name.
    """
    report = read_report(folder)
    known = {claim.id: claim for claim in claims}
    chosen = []
    for of in report.claims:
        if of not in known:
            raise RunError(f"the report: a claim {shown(of)} that this version does not have.")
        if name and of != name.partition(".")[0]:
            continue
        claim = known[of]
        judged = _judged(report, claim)
        numbers = [n for n in judged.numbers.values() if name in ("", of, _name(claim, n))]
        chosen.append((judged, numbers))
    if not any(numbers for _, numbers in chosen) and name:
        raise ConfigError(
            f"{name}: no number or claim of this name in the report; see its numbers.csv."
        )
    return Asked(report, chosen)


def verify(asked: Asked, scratch: Laboratory, *, cheap: bool = False) -> list[Verified]:
    """Run again what numbers of a report stand on, in an empty laboratory, and judge again.

    Args:
        asked: As `read_numbers` returns it.
        scratch: Empty, or that of an earlier call that was interrupted.
        cheap: Whether only the quickest task of each number is run again, the others taken as
            recorded.
    """
    evidence = asked.report.evidence
    again = {
        (judged.claim.id, number.id): to_run(number, evidence, cheap=cheap)
        for judged, numbers in asked.chosen
        for number in numbers
    }
    tasks = list(dict.fromkeys(task for wanted in again.values() for task in wanted))
    rerun = Rerun.of(tasks, evidence, scratch, lack=lacking(asked.report.budget))
    found = []
    for judged, numbers in asked.chosen:
        now = _judged_again(judged, evidence | rerun.fresh)
        for number in numbers:
            value = now[number.id].value if number.id in now else math.nan
            name = _name(judged.claim, number)
            found.append(rerun.verified(name, number, value, again[judged.claim.id, number.id]))
    return found


def _judged(report: StoredReport, claim: Claim) -> Judged:
    """Judge a claim by the report's evidence; the report must have come to the same.

    The evidence is a stranger's: what it lacks, or holds of another kind, may fail anywhere in a
    judge, which trusts what tasks wrote.
    """
    try:
        judged = Judged(
            claim, report.budget, report.evidence, claim.judge(report.budget, report.evidence)
        )
        stored = judged.as_json()
    except Exception as error:
        raise RunError(
            f"the report: {claim.id} cannot be judged by its evidence ({type(error).__name__}); "
            "expected what its tasks find. Write the report anew, or use the version that wrote it."
        ) from error
    if stored != report.claims[claim.id]:
        raise RunError(
            f"the report: the numbers of {claim.id} do not follow from its own evidence by the "
            "rules of this version; write the report anew, or use the version that wrote it."
        )
    return judged


def _name(claim: Claim, number: Number) -> str:
    return f"{claim.id}.{number.id}"


def _judged_again(judged: Judged, evidence: Evidence) -> dict[str, Number]:
    try:
        judgement = judged.claim.judge(judged.budget, evidence)
    except Exception:  # other results may lead a search elsewhere, beside a stranger's records
        return {}
    return Judged(judged.claim, judged.budget, evidence, judgement).numbers
