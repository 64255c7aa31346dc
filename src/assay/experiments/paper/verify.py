"""Run the numbers of a report again, and say of each whether it came back."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.errors import AssayError, ConfigError, RunError
from assay.experiments.claim import Budget, Claim, Number
from assay.experiments.claims import CLAIMS
from assay.experiments.evidence import Evidence
from assay.experiments.laboratory import Laboratory, lacking
from assay.experiments.paper.folder import read_report
from assay.experiments.paper.judged import Judged
from assay.experiments.paper.rerun import Rerun, Verified, to_run


def verify(
    folder: Path,
    name: str,
    scratch: Laboratory,
    *,
    cheap: bool = False,
    claims: Sequence[Claim] = CLAIMS,
) -> list[Verified]:
    """Run again what the numbers of a report stand on, in an empty laboratory, and judge again.

    Args:
        folder: Of the report; every file of it is held to its hash first.
        name: Of a number, `CLAIM.NUMBER`, or of a claim; empty for the whole report.
        scratch: Empty, or that of an earlier call that was interrupted.
        cheap: Whether only the quickest task of each number is run again, the others taken as
            recorded.
        claims: Those this version has.

    Raises:
        RunError: If the report was changed, or its numbers do not follow from its own evidence.
        ConfigError: If it has no number of this name.
    """
    report, evidence = read_report(folder)
    known = {claim.id: claim for claim in claims}
    chosen = _chosen(report, evidence, name, known)
    again = {
        (judged.claim.id, number.id): to_run(number, evidence, cheap=cheap)
        for judged, numbers in chosen
        for number in numbers
    }
    tasks = list(dict.fromkeys(task for wanted in again.values() for task in wanted))
    rerun = Rerun.of(tasks, evidence, scratch, lack=lacking(report["budget"]))
    found = []
    for judged, numbers in chosen:
        now = _judged_again(judged, evidence | rerun.fresh)
        for number in numbers:
            value = now[number.id].value if number.id in now else math.nan
            name = _name(judged.claim, number)
            found.append(rerun.verified(name, number, value, again[judged.claim.id, number.id]))
    return found


def _chosen(
    report: Mapping[str, Any], evidence: Evidence, name: str, known: Mapping[str, Claim]
) -> list[tuple[Judged, list[Number]]]:
    """Return the claims with the numbers asked for, which follow from the report's evidence."""
    budget: Budget = report["budget"]
    chosen = []
    for stored in report["claims"]:
        if stored["id"] not in known:
            raise RunError(f"the report: a claim {stored['id']!r} that this version does not have.")
        if name and stored["id"] != name.partition(".")[0]:
            continue
        claim = known[stored["id"]]
        judged = Judged(claim, budget, evidence, claim.judge(budget, evidence))
        if judged.as_json() != stored:
            raise RunError(
                f"the report: the numbers of {claim.id} do not follow from its own evidence by the "
                "rules of this version; write the report anew, or use the version that wrote it."
            )
        numbers = [n for n in judged.numbers.values() if name in ("", claim.id, _name(claim, n))]
        chosen.append((judged, numbers))
    if not any(numbers for _, numbers in chosen) and name:
        raise ConfigError(
            f"{name}: no number or claim of this name in the report; see its numbers.csv."
        )
    return chosen


def _name(claim: Claim, number: Number) -> str:
    return f"{claim.id}.{number.id}"


def _judged_again(judged: Judged, evidence: Evidence) -> dict[str, Number]:
    try:
        judgement = judged.claim.judge(judged.budget, evidence)
    except (KeyError, ValueError, AssayError):  # other results may lead a search elsewhere
        return {}
    return Judged(judged.claim, judged.budget, evidence, judgement).numbers
